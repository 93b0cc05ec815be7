package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Values longer than this are refused unread.
const maxValue = 16 << 10

var errForm = errors.New("does not have the accepted form")

// ParseSize reads a number of bytes with an optional binary suffix: 512, 64Ki,
// 4Mi, 2Gi, 1Ti. Decimal fractions and decimal suffixes are not accepted.
func ParseSize(s string) (int64, error) {
	number, shift := s, 0
	for i, suffix := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, shift = n, 10*(i+1)
		}
	}
	n, err := parseDecimal(number)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64>>shift {
		return 0, errForm
	}
	return n << shift, nil
}

// FormatSize writes n with the largest binary suffix that loses nothing.
func FormatSize(n int64) string {
	suffix := ""
	for _, s := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, suffix = n/1024, s
	}
	return strconv.FormatInt(n, 10) + suffix
}

// parseDecimal is strconv.ParseInt without signs, underscores and prefixes.
func parseDecimal(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errForm
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errForm
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errForm
}

func parseDuration(s string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < least {
		return 0, errForm
	}
	return d, nil
}

// formatDuration writes 10m0s as 10m.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseBudget(s string) (Budget, error) {
	if s == "unlimited" {
		return Budget{Unlimited: true}, nil
	}
	count, window, ok := strings.Cut(s, "/")
	if !ok {
		return Budget{}, errForm
	}
	n, err := parseDecimal(count)
	if err != nil || n > 1_000_000 {
		return Budget{}, errForm
	}
	w, err := parseDuration(window, time.Second)
	if err != nil {
		return Budget{}, err
	}
	return Budget{Recoveries: int(n), Window: w}, nil
}

// parseVolumes reads absolute container paths; they are compared literally
// with the mounts of the spec, so only the clean form is accepted.
func parseVolumes(s string) ([]string, error) {
	var out []string
	for _, p := range splitList(s) {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
			return nil, fmt.Errorf("%q %w", shorten(p), errForm)
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// parsePorts reads ports and ranges, and merges those that touch or overlap.
func parsePorts(s string) ([]PortRange, error) {
	var all []PortRange
	for _, item := range splitList(s) {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		a, errA := parsePort(first)
		b, errB := parsePort(last)
		if errA != nil || errB != nil || a > b {
			return nil, fmt.Errorf("%q %w", shorten(item), errForm)
		}
		all = append(all, PortRange{a, b})
	}
	slices.SortFunc(all, func(x, y PortRange) int { return int(x.First) - int(y.First) })
	var out []PortRange
	for _, r := range all {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

func parsePort(s string) (uint16, error) {
	n, err := parseDecimal(s)
	if err != nil || n < 1 || n > math.MaxUint16 {
		return 0, errForm
	}
	return uint16(n), nil
}

// splitList splits at commas and trims blanks. An empty string is an empty
// list; an empty item is kept, and refused by the caller.
func splitList(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	items := strings.Split(s, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}
