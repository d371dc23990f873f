//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// browser opens a headless Chromium with an empty profile. Where none can be had
// the test skips itself, and is counted.
func browser(t *testing.T) context.Context {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../scripts/browser.sh").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 69 {
		t.Skip("no browser can be had here")
	}
	if err != nil {
		t.Fatal("scripts/browser.sh:", err)
	}
	ctx, cancel := chromedp.NewContext(t.Context(), chromedp.WithAllocatorOptions(
		chromedp.ExecPath(strings.TrimSpace(string(out))), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(900, 700)))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the first call's context is the browser's life
		t.Fatal("start the browser:", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// page is the chat in a browser.
type page struct {
	t   *testing.T
	ctx context.Context
}

func (p page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for an expression to hold in the page.
func (p page) until(expression string) {
	p.t.Helper()
	p.do(chromedp.Poll[chromedp.Void](expression))
}

func (p page) text(expression string) string {
	p.t.Helper()
	out, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p page) ask(question string) {
	p.t.Helper()
	p.do(chromedp.SendKeys("#text", question+"\r"))
}

// shoot keeps a screenshot for who looks at the run.
func (p page) shoot(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "build", "screenshots")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)); err != nil {
		p.t.Error(err)
	}
}

// Of the latest answer on the page.
const (
	answered = `[...document.querySelectorAll("article.assistant")].at(-1)`
	said     = answered + `.firstChild.textContent`
	busy     = answered + `.getAttribute("aria-busy") === "true"`
)

func TestTheChatPage(t *testing.T) {
	dev := startDev(t)
	p := page{t, browser(t)}
	p.do(chromedp.Navigate(dev.cl.API()+"/chat"), chromedp.WaitVisible("#send"))
	p.until(`document.querySelector("#model").options.length > 0`)

	t.Run("an answer survives a reload in its middle", func(t *testing.T) {
		p := page{t, p.ctx}
		p.ask("Why is the sky blue?")
		p.until(busy + " && " + said + ".length > 40")
		p.shoot("chat-streaming")
		before := p.text(said)
		p.do(chromedp.Reload(), chromedp.WaitVisible("#text"))
		if shown := p.text(said); !strings.HasPrefix(shown, before) {
			t.Errorf("after the reload it shows %q, before it %q", shown, before)
		}
		p.until(fmt.Sprintf("%s && %s.length > %d", busy, said, len(before))) // it goes on, and is not only shown whole at the end
		p.until("!(" + busy + ")")
		id := task.ID(p.text(answered + `.dataset.task`))
		got, err := dev.cl.Task(t.Context(), id, 0)
		if err != nil || got.Status != task.Succeeded {
			t.Fatalf("the task is %+v, %v", got, err)
		}
		if shown := p.text(said); shown != got.Output.Text {
			t.Errorf("it shows %q, the task says %q", shown, got.Output.Text)
		}
		p.shoot("chat-answered")
	})
	t.Run("an answer that ended while nobody watched is there after a reload", func(t *testing.T) {
		p := page{t, p.ctx}
		p.ask("And the sea?")
		p.until(busy + " && " + said + ".length > 0")
		id := task.ID(p.text(answered + `.dataset.task`))
		p.do(chromedp.Navigate("about:blank"))
		got, err := dev.cl.Task(t.Context(), id, 30*time.Second)
		if err != nil || got.Status != task.Succeeded {
			t.Fatalf("the task of a page that is left is %+v, %v", got, err)
		}
		p.do(chromedp.Navigate(dev.cl.API() + "/chat"))
		p.until("!(" + busy + ") && " + said + ".length > 0")
		if shown := p.text(said); shown != got.Output.Text {
			t.Errorf("it shows %q, the task says %q", shown, got.Output.Text)
		}
		prompt, err := json.Marshal([]utterance{
			{"user", "Why is the sky blue?"}, {"assistant", p.text(`document.querySelector("article.assistant").firstChild.textContent`)}, {"user", "And the sea?"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := simulated.Text(string(prompt), 256); got.Output.Text != want {
			t.Errorf("the model was not given what was said before: it answered %.80q; want %.80q", got.Output.Text, want)
		}
	})
	t.Run("Stop stops the task and keeps what was said", func(t *testing.T) {
		p := page{t, p.ctx}
		p.ask("Tell me more")
		p.until(busy + " && " + said + ".length > 20")
		p.do(chromedp.Click("#stop"))
		p.until("!(" + busy + ")")
		if note := p.text(answered + `.lastChild.textContent`); note != "stopped" {
			t.Errorf("it says %q", note)
		}
		if p.text(said) == "" {
			t.Error("what was said is gone")
		}
		got, err := dev.cl.Task(t.Context(), task.ID(p.text(answered+`.dataset.task`)), 0)
		if err != nil || got.Status != task.Cancelled {
			t.Errorf("the task is %s, %v", got.Status, err)
		}
	})
	t.Run("trouble is told in words", func(t *testing.T) {
		p := page{t, p.ctx}
		p.do(chromedp.SetValue("#model", "sim-embed"))
		p.ask("A model that does not chat")
		p.until("!(" + busy + ") && " + answered + `.classList.contains("bad")`)
		if note := p.text(answered + `.lastChild.textContent`); !strings.Contains(note, "sim-embed") {
			t.Errorf("it says %q", note)
		}
		p.shoot("chat-trouble")
	})
}
