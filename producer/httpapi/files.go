package httpapi

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

const (
	// formRoom is for what a form says beside its file.
	formRoom = 1 << 20
	// maxFields and maxField bound the fields of a form and the bytes of one.
	maxFields = 16
	maxField  = 4096
	// downloadPiece is sent at a time, downloadWait is how long a client may take
	// for one.
	downloadPiece = 64 << 10
	downloadWait  = 30 * time.Second

	maxFilePage, defaultFilePage   = 10_000, 10_000
	maxBatchPage, defaultBatchPage = 100, 20
)

// registerBulk adds the routes of files and batches.
func (a *API) registerBulk(e *echo.Echo) {
	form := httpserver.ErrorFormat(writeOpenAIError) // first: the errors of authentication have it too
	submit, read := httpserver.Authenticate(a.d.Auth, auth.ScopeSubmit), httpserver.Authenticate(a.d.Auth, auth.ScopeRead)
	e.POST("/v1/files", a.postFile, form, submit)
	e.GET("/v1/files", a.getFiles, form, read)
	e.GET("/v1/files/:id", a.getFile, form, read)
	e.GET("/v1/files/:id/content", a.getContent, form, read)
	e.DELETE("/v1/files/:id", a.deleteFile, form, submit)
	e.POST("/v1/batches", a.postBulk, form, submit)
	e.GET("/v1/batches", a.getBatches, form, read)
	e.GET("/v1/batches/:id", a.getBatch, form, read)
	e.GET("/v1/batches/:id/webhook", a.getBatchWebhook, form, read)
	e.POST("/v1/batches/:id/cancel", a.cancelBatch, form, submit)
}

// postFile takes a form with a file in it, which is stored while it comes in,
// and the fields that say what it is, in any order.
func (a *API) postFile(c echo.Context) error {
	in, err := httpserver.OpenUpload(c, a.d.MaxFile+formRoom)
	if err != nil {
		return err
	}
	defer in.Close()
	form, err := c.Request().MultipartReader()
	if err != nil {
		return fault.New(fault.Unsupported, "send the file as multipart/form-data, with the fields file and purpose")
	}
	f, err := a.receive(c.Request().Context(), httpserver.Principal(c).Tenant, form)
	if err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, fileOf(f))
}

// receive reads a form. A file whose form is at fault is dropped again.
func (a *API) receive(ctx context.Context, tenant string, form *multipart.Reader) (bulk.File, error) {
	var up uploaded
	var about bulk.About
	err := a.readForm(ctx, form, &up)
	if err == nil {
		about, err = up.about()
	}
	switch {
	case err == nil && up.stored:
		return a.d.Bulk.File(ctx, tenant, up.upload, about)
	case up.stored:
		a.d.Bulk.Drop(ctx, up.upload)
	case err == nil:
		err = invalid("file", "is required")
	}
	return bulk.File{}, err
}

// uploaded is what a form has brought.
type uploaded struct {
	upload bulk.Upload
	stored bool
	name   string
	fields map[string]string
}

func (a *API) readForm(ctx context.Context, form *multipart.Reader, up *uploaded) error {
	up.fields = map[string]string{}
	for {
		part, err := form.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return formError(err)
		case part.FormName() == "file":
			err = a.store(ctx, part, up)
		default:
			err = up.field(part)
		}
		if err != nil {
			return err
		}
	}
}

func (a *API) store(ctx context.Context, part *multipart.Part, up *uploaded) (err error) {
	if up.stored {
		return invalid("file", "is given more than once")
	}
	up.name = part.FileName()
	up.upload, err = a.d.Bulk.Receive(ctx, part)
	up.stored = err == nil
	return formError(err)
}

func (up *uploaded) field(part *multipart.Part) error {
	value, err := io.ReadAll(io.LimitReader(part, maxField+1))
	switch {
	case err != nil:
		return formError(err)
	case len(value) > maxField || len(up.fields) >= maxFields:
		return invalid("", "the form has more fields, or longer ones, than a file needs")
	}
	up.fields[part.FormName()] = string(value)
	return nil
}

func (up *uploaded) about() (bulk.About, error) {
	out := bulk.About{Name: up.name, Purpose: bulk.Purpose(up.fields["purpose"])}
	anchor, seconds := up.fields["expires_after[anchor]"], up.fields["expires_after[seconds]"]
	if anchor == "" && seconds == "" {
		return out, nil
	}
	n, err := strconv.Atoi(seconds)
	if err != nil {
		return out, invalid("expires_after.seconds", "must be a whole number")
	}
	out.Life, err = lifeOf("expires_after", &api.ExpiresAfter{Anchor: anchor, Seconds: n})
	return out, err
}

func lifeOf(path string, e *api.ExpiresAfter) (time.Duration, error) {
	const longest = 10 * 365 * 24 * 3600 // what is longer than files live here is refused with their limit
	switch {
	case e == nil:
		return 0, nil
	case e.Anchor != "created_at":
		return 0, invalid(path+".anchor", "must be created_at")
	case e.Seconds < 1 || e.Seconds > longest:
		return 0, invalid(path+".seconds", "must be a number of seconds")
	}
	return time.Duration(e.Seconds) * time.Second, nil
}

// formError tells a form that cannot be read from what lies behind it.
func formError(err error) error {
	var own *httpserver.Error
	var failed *fault.Error
	var bad *validate.Error
	if err == nil || errors.As(err, &own) || errors.As(err, &failed) || errors.As(err, &bad) {
		return err
	}
	return &httpserver.Error{Status: http.StatusBadRequest, Code: string(fault.Malformed), Message: "the form cannot be read: send multipart/form-data as it is", Err: err}
}

func invalid(path, reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: path, Offset: -1, Reason: reason}
}

// bulkError gives an error of the desk its HTTP form. Where the server has no
// store a retry is in vain.
func (a *API) bulkError(c echo.Context, err error) error {
	var ended bulk.ErrEnded
	var inUse bulk.ErrInUse
	switch {
	case errors.As(err, &ended), errors.As(err, &inUse):
		return &httpserver.Error{Status: http.StatusConflict, Code: string(fault.Conflict), Message: err.Error()}
	case errors.Is(err, bulk.ErrNoStore):
		c.Response().Header().Set(headerShouldRetry, "false")
	}
	return answer(err)
}

func fileOf(f bulk.File) api.File {
	return api.File{
		ID: f.ID, Object: "file", Bytes: f.Content.Bytes, CreatedAt: f.CreatedAt.Unix(), ExpiresAt: f.ExpiresAt.Unix(),
		Filename: f.Name, Purpose: string(f.Purpose), Status: "processed",
	}
}

func (a *API) getFiles(c echo.Context) error {
	p, err := pageOf(c, maxFilePage, defaultFilePage)
	if err != nil {
		return answer(err)
	}
	files, more, err := a.d.Bulk.Files(c.Request().Context(), httpserver.Principal(c).Tenant, bulk.Purpose(c.QueryParam("purpose")), p)
	if err != nil {
		return a.bulkError(c, err)
	}
	out := api.FileList{Object: "list", Data: make([]api.File, len(files)), HasMore: more}
	for i, f := range files {
		out.Data[i] = fileOf(f)
	}
	if n := len(files); n > 0 {
		out.FirstID, out.LastID = &files[0].ID, &files[n-1].ID
	}
	return c.JSON(http.StatusOK, out)
}

// pageOf reads after, limit and order.
func pageOf(c echo.Context, most, otherwise int) (bulk.Page, error) {
	p := bulk.Page{After: c.QueryParam("after"), Limit: otherwise}
	if text := c.QueryParam("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return p, invalid("limit", "must be 1 to "+strconv.Itoa(most))
		}
		p.Limit = n
	}
	switch c.QueryParam("order") {
	case "", "desc":
	case "asc":
		p.Ascending = true
	default:
		return p, invalid("order", "must be asc or desc")
	}
	return p, nil
}

func (a *API) getFile(c echo.Context) error {
	f, err := a.d.Bulk.FindFile(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, fileOf(f))
}

func (a *API) deleteFile(c echo.Context) error {
	id := c.Param("id")
	if err := a.d.Bulk.DeleteFile(c.Request().Context(), httpserver.Principal(c).Tenant, id); err != nil {
		return a.bulkError(c, err)
	}
	return c.JSON(http.StatusOK, api.FileDeleted{ID: id, Object: "file", Deleted: true})
}

// getContent sends a file piece by piece. One that breaks off, or turns out to be
// another one at its end, ends the connection without the last piece: nobody
// takes it for the whole.
func (a *API) getContent(c echo.Context) error {
	f, content, err := a.d.Bulk.Content(c.Request().Context(), httpserver.Principal(c).Tenant, c.Param("id"))
	if err != nil {
		return a.bulkError(c, err)
	}
	defer content.Close()
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	h.Set(echo.HeaderContentLength, strconv.FormatInt(f.Content.Bytes, 10))
	h.Set(echo.HeaderContentDisposition, mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	c.Response().WriteHeader(http.StatusOK)
	if sendChecked(httpserver.NewStreamWriter(c, downloadWait), content) != nil {
		panic(http.ErrAbortHandler) // the client is gone, or the store counts and reports it
	}
	return nil
}

// sendChecked sends each piece once the next was read: that a content is damaged
// is told at its end, and then the last piece is still here.
func sendChecked(w httpserver.StreamWriter, content io.Reader) error {
	piece, next := make([]byte, 0, downloadPiece), make([]byte, downloadPiece)
	for {
		n, err := io.ReadFull(content, next)
		ended := err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // ReadFull's own; a store that broke off wraps one of them
		if err != nil && !ended {
			return err
		}
		if len(piece) > 0 {
			if err := w.Send(piece); err != nil {
				return err
			}
		}
		piece, next = next[:n], piece[:downloadPiece]
		if ended && n == 0 {
			return nil
		}
	}
}
