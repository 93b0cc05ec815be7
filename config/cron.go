package config

import (
	"strings"
	"time"

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

// Next is the first time after t; zero if there is none.
func (c Cron) Next(t time.Time) time.Time {
	if c.times == nil {
		return time.Time{}
	}
	return c.times.Next(t)
}

// String returns the form that the annotation has.
func (c Cron) String() string {
	if c.times == nil {
		return "off"
	}
	return c.text
}
