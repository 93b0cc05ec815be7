package config

import (
	"fmt"
	"strings"
)

// Table returns the annotations as a Markdown table, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| Annotation | Accepted | Default | Bounds | Meaning |\n|---|---|---|---|---|\n")
	for _, k := range keys() {
		def, bounds := "*(empty)*", "no"
		if k.def != "" {
			def = "`" + k.def + "`"
		}
		if k.rank != nil {
			bounds = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, k.form, def, bounds, k.doc)
	}
	return b.String()
}
