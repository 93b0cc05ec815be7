package config

import (
	"strings"
	"time"
	_ "time/tzdata" // not every node has the time zones

	"github.com/robfig/cron/v3"
)

// Cron is a list of times in the form of crontab(5). Its zero value has none.
type Cron struct {
	text  string
	times cron.Schedule
}

// zonePrefix of an expression names the time zone that it is in.
const zonePrefix = "CRON_TZ="

// parseCron reads minute, hour, day of month, month and day of week, optionally
// after a time zone. An expression that matches no day of the next years, such
// as the 30th of February, is refused.
func parseCron(s string) (Cron, error) {
	fields := strings.Fields(s)
	zone := len(fields) == 6 && strings.HasPrefix(fields[0], zonePrefix)
	// The library panics on a time zone without anything behind it.
	if len(fields) != 5 && !zone || !zone && strings.Contains(fields[0], "=") {
		return Cron{}, errForm
	}
	text := strings.Join(fields, " ")
	parser := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
	times, err := parser.Parse(text)
	if err != nil || times.Next(time.Now()).IsZero() {
		return Cron{}, errForm
	}
	return Cron{text: text, times: times}, nil
}

// IsZero reports that there are no times.
func (c Cron) IsZero() bool { return c.times == nil }

// Next is the first time after t; zero if there is none. Times that the clock
// skips when it is put forward come at the moment when that is done, unless the
// following one is no further away than the clock was moved. Times that it shows
// twice when it is put back come twice.
func (c Cron) Next(t time.Time) time.Time {
	if c.times == nil {
		return time.Time{}
	}
	next := c.times.Next(t)
	spec, ok := c.times.(*cron.SpecSchedule)
	if !ok {
		return next
	}
	for _, moved := t.In(spec.Location).ZoneBounds(); !moved.IsZero() && moved.Before(next); _, moved = moved.ZoneBounds() {
		if skips(*spec, moved, next) {
			return moved
		}
	}
	return next
}

// skips reports whether the clock, when it is moved, skips a time before next.
func skips(spec cron.SpecSchedule, moved, next time.Time) bool {
	_, before := moved.Add(-time.Second).Zone()
	_, after := moved.Zone()
	gap := time.Duration(after-before) * time.Second
	if next.Sub(moved) <= gap {
		return false
	}
	spec.Location = time.FixedZone("", before) // the clock as if nobody had moved it
	return spec.Next(moved.Add(-time.Second)).Before(moved.Add(gap))
}

// String returns the form that the annotation has.
func (c Cron) String() string {
	if c.times == nil {
		return "off"
	}
	return c.text
}
