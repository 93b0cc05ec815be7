package bench

import (
	"fmt"
	"io"
	"math"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is a table for people.
type Table struct {
	title  string
	header []any
	rows   [][]any
}

// Table begins a table. The first column is the name of what stands in a row.
func (r *Results) Table(title string, header ...any) *Table {
	t := &Table{title: title, header: header}
	r.tables = append(r.tables, t)
	return t
}

// Row appends a row. Numbers are rounded, and NaN is shown as a dash.
func (t *Table) Row(cells ...any) {
	for i, c := range cells {
		if v, ok := c.(float64); ok {
			cells[i] = format(v)
		}
	}
	t.rows = append(t.rows, cells)
}

// format shows three significant digits, and all digits before the point.
func format(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Print writes the tables, as Markdown if asked to.
func (r *Results) Print(w io.Writer, markdown bool) error {
	for _, t := range r.tables {
		if _, err := fmt.Fprintf(w, "\n%s\n\n%s\n", t.title, t.render(markdown)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) render(markdown bool) string {
	w := table.NewWriter()
	style := table.StyleLight
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	w.AppendHeader(t.header)
	columns := []table.ColumnConfig{}
	for i := 2; i <= len(t.header); i++ {
		columns = append(columns, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	w.SetColumnConfigs(columns)
	for _, row := range t.rows {
		w.AppendRow(row)
	}
	if markdown {
		return w.RenderMarkdown()
	}
	return w.Render()
}
