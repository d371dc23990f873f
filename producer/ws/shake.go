package ws

import (
	"net/http"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/schema/fault"
)

// shake makes a WebSocket of a request whose page may have one. Refusals have
// the form of every other answer.
func (a *API) shake(c echo.Context) (*websocket.Conn, error) {
	w := &refusal{ResponseWriter: c.Response()}
	conn, err := websocket.Accept(w, c.Request(), &websocket.AcceptOptions{OriginPatterns: a.p.Origins})
	if err != nil {
		return nil, w.fault(err)
	}
	return conn, nil
}

// refusal keeps the library's own words from a client whose handshake failed.
type refusal struct {
	http.ResponseWriter
	status int // 0: nothing is refused
}

// WriteHeader lets only the switch of protocols through.
func (w *refusal) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

// Write drops the body of a refusal.
func (w *refusal) Write(p []byte) (int, error) {
	if w.status != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap leads to the connection.
func (w *refusal) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fault is what the refused client is told.
func (w *refusal) fault(err error) error {
	e := httpserver.Fail(fault.Malformed, "this is no handshake of a WebSocket, version 13, over HTTP/1.1")
	switch w.status {
	case http.StatusForbidden:
		e = httpserver.Fail(fault.Forbidden, "pages of this Origin may not connect: ask the operator to name its host in socket_origins")
	case http.StatusUpgradeRequired:
		e.Status = http.StatusUpgradeRequired
	}
	e.Err = err
	return e
}
