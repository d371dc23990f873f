package batch

import (
	"math"
	"time"
)

// Curve learns what a call of n items costs, as base + item × n: recursive
// least squares that forgets, so that it follows an engine that changes, with
// residuals clipped, so that one hiccup does not bend it. The zero value has
// learned nothing. Not safe for concurrent use.
type Curve struct {
	base, item float64 // seconds
	p          [3]float64
	scale      float64 // typical residual, seconds
	seen       int
	most       int // items of the largest call seen
}

const (
	forget = 0.98 // memory of about 50 calls
	warm   = 3    // observations before the curve is believed
	steady = 8    // observations before residuals are clipped
	clip   = 4    // typical residuals that one observation may weigh
	// ceiling keeps the uncertainty of a direction that is never observed (all
	// calls of one size) from growing without bound while the rest is forgotten.
	ceiling = 1e6
)

// Observe learns from one call of n items.
func (c *Curve) Observe(n int, took time.Duration) {
	if n < 1 || took < 0 {
		return
	}
	if c.seen == 0 {
		c.p = [3]float64{1e3, 0, 10} // we know less of the base than of the slope
	}
	x := float64(n)
	residual := c.clip(took.Seconds() - (c.base + c.item*x))
	c.seen++
	c.most = max(c.most, n)
	// Gain k = P·(1 x)ᵀ / (forget + (1 x)·P·(1 x)ᵀ); P is symmetric: [p0 p1; p1 p2].
	u, v := c.p[0]+c.p[1]*x, c.p[1]+c.p[2]*x
	d := forget + u + v*x
	c.base += residual * u / d
	c.item += residual * v / d
	c.p[0] -= u * u / d
	c.p[1] -= u * v / d
	c.p[2] -= v * v / d
	if c.p[0]+c.p[2] < ceiling {
		for i := range c.p {
			c.p[i] /= forget
		}
	}
}

// clip bounds a residual. A lasting change is still followed: what is clipped
// raises the scale, which lets more through next time.
func (c *Curve) clip(residual float64) float64 {
	bound := math.Inf(1)
	if c.seen >= steady {
		bound = clip*c.scale + 1e-4
	}
	residual = max(-bound, min(bound, residual))
	if c.seen >= warm {
		c.scale += 0.1 * (math.Abs(residual) - c.scale)
	}
	return residual
}

// Known reports whether the curve has seen enough to be believed.
func (c *Curve) Known() bool { return c.seen >= warm }

// Covers reports whether calls of n items are near enough to those it has seen.
func (c *Curve) Covers(n int) bool { return c.Known() && 2*n <= 3*c.most+2 }

// Cost returns what a call of n items is expected to take.
func (c *Curve) Cost(n int) time.Duration {
	return seconds(c.Base() + c.Item()*float64(n))
}

// Base returns what a call costs whatever its size, in seconds.
func (c *Curve) Base() float64 { return max(0, c.base) }

// Item returns what each item adds, in seconds.
func (c *Curve) Item() float64 { return max(0, c.item) }

// noise is how far calls of n items typically are from their cost, as a part of
// it.
func (c *Curve) noise(n int) float64 {
	cost := c.Base() + c.Item()*float64(n)
	if cost <= 0 {
		return 0
	}
	return c.scale / cost
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
