package session

import "strings"

// effect is what a statement does to its session.
type effect int

const (
	unknown effect = iota
	neutral        // nothing that outlasts the transaction
	sets           // it sets something: sessions in which the same was set in the same order are alike
)

// effectOf reads as much of SQL as it takes. A semicolon in a literal makes of it what
// is not known, which is on the safe side.
func effectOf(sql string) effect {
	seen := map[effect]bool{}
	for text := range strings.SplitSeq(strings.ToLower(sql), ";") {
		if text = withoutComments(text); text != "" {
			seen[effectOfOne(text)] = true
		}
	}
	switch {
	case seen[unknown] || len(seen) > 1: // what a transaction sets may be undone with it
		return unknown
	case seen[sets]:
		return sets
	}
	return neutral
}

// verbs are what the statements of SQL begin with.
func verbs(sql string) (list []string) {
	for text := range strings.SplitSeq(strings.ToLower(sql), ";") {
		if verb, _, _ := strings.Cut(withoutComments(text), " "); verb != "" {
			list = append(list, verb)
		}
	}
	return list
}

// begins reports whether SQL is one statement, which begins a transaction.
func begins(sql string) bool {
	list := verbs(sql)
	return len(list) == 1 && (list[0] == "begin" || list[0] == "start")
}

// works reports whether SQL does not end a transaction that is open.
func works(sql string) bool {
	for _, verb := range verbs(sql) {
		switch verb {
		case "select", "insert", "update", "delete", "merge", "values", "with", "table", "savepoint", "release":
		default:
			return false
		}
	}
	return true
}

func effectOfOne(text string) effect {
	verb, rest, _ := strings.Cut(text, " ")
	switch verb {
	case "select", "insert", "update", "delete", "merge", "values", "with", "table",
		"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release":
		for _, word := range lasting() {
			if strings.Contains(text, word) {
				return unknown
			}
		}
		return neutral
	case "set":
		if strings.HasPrefix(rest, "local ") || strings.HasPrefix(rest, "transaction ") {
			return neutral
		}
		return sets
	case "reset":
		return sets
	case "show":
		return neutral
	}
	return unknown
}

// lasting are words of what outlasts its transaction, or tells sessions apart.
func lasting() []string {
	return []string{
		"set_config", "pg_advisory", "pg_try_advisory", "pg_temp", " temp ", " temporary ", "pg_backend_pid",
		"currval", "lastval", "setseed", "dblink", "lo_open",
	}
}

// withoutComments trims what stands before a statement, and makes one space of any.
func withoutComments(text string) string {
	for {
		text = strings.TrimSpace(text)
		switch {
		case strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text, "*/")
		default:
			return strings.Join(strings.Fields(text), " ")
		}
	}
}
