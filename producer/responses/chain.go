package responses

import (
	"context"
	"fmt"
	"slices"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/fault"
)

// maxLinks is how many responses a conversation may have before the next.
const maxLinks = 64

// Earlier returns the messages of a stored response and of those before it,
// oldest first. Errors about the caller's own are *validate.Error of
// previous_response_id.
func (d *Desk) Earlier(ctx context.Context, tenant, previous string) ([]openai.Message, error) {
	var links [][]openai.Message
	room := d.p.MaxChain
	for id := previous; id != ""; {
		if len(links) == maxLinks {
			return nil, badPrevious(fault.Malformed, fmt.Sprintf("is the last of more than %d responses", maxLinks))
		}
		link, before, err := d.link(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		for _, m := range link {
			room -= int64(m.Size())
		}
		if room < 0 {
			return nil, badPrevious(fault.TooLarge, fmt.Sprintf("brings more than %d bytes of messages", d.p.MaxChain))
		}
		links, id = append(links, link), before
	}
	slices.Reverse(links)
	return slices.Concat(links...), nil
}

// link is the messages of one response, and the id of the one before it.
func (d *Desk) link(ctx context.Context, tenant, id string) (_ []openai.Message, before string, err error) {
	r, err := d.Find(ctx, tenant, id)
	if err != nil {
		return nil, "", badLink(err)
	}
	view, release, err := d.View(ctx, r)
	if err != nil {
		return nil, "", badLink(err)
	}
	defer release()
	messages, ok, err := r.Messages(view)
	if err != nil {
		return nil, "", fmt.Errorf("read earlier response: %w", err)
	}
	if !ok {
		return nil, "", badPrevious(fault.Malformed, "names a response that has not completed, or not with an answer")
	}
	if previous := r.Request.Echo.Previous; previous != nil {
		before = *previous
	}
	return messages, before, nil
}

func badLink(err error) error {
	if fault.CodeOf(err) == fault.NotFound {
		return badPrevious(fault.NotFound, "names a response that is not there, or follows one that is not")
	}
	return err
}

func badPrevious(code fault.Code, reason string) error {
	return &validate.Error{Code: code, Path: "previous_response_id", Offset: -1, Reason: reason}
}
