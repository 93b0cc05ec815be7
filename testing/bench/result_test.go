package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWriteJSON(t *testing.T) {
	r := &Results{}
	r.Add("a", 1234.5678, "ms", "note")
	r.AddQuantiles("b", Sample{0.0012344, 3}, "s", "", 0.99, 1)
	file := filepath.Join(t.TempDir(), "deep", "bench.json")
	require.NoError(t, r.WriteJSON(file))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var got []map[string]any
	require.NoError(t, json.Unmarshal(data, &got))
	assert.Equal(t, []map[string]any{
		{"metric": "a", "value": 1235.0, "unit": "ms", "note": "note"},
		{"metric": "b_p50", "value": 1.501, "unit": "s", "note": ""},
		{"metric": "b_p99", "value": 3.0, "unit": "s", "note": ""},
		{"metric": "b_max", "value": 3.0, "unit": "s", "note": ""},
	}, got)
	assert.Equal(t, 3.0, r.Get("b_max"))
	assert.True(t, math.IsNaN(r.Get("c")))
}

// TestWriteWithoutValue: what was not measured must not pass for measured, and
// the rest must not be lost.
func TestWriteWithoutValue(t *testing.T) {
	r := &Results{}
	r.Add("none", Sample{}.Median(), "ms", "")
	r.Add("infinite", math.Inf(1), "ms", "")
	r.Add("zero", 0, "ms", "")
	file := filepath.Join(t.TempDir(), "bench.json")
	err := r.WriteJSON(file)
	require.ErrorIs(t, err, ErrNoValue)
	assert.ErrorContains(t, err, "[none infinite]")
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.JSONEq(t, `[{"metric":"zero","value":0,"unit":"ms","note":""}]`, string(data))
}

func TestTable(t *testing.T) {
	r := &Results{}
	table := r.Table("A title", "What", "p50", "p99")
	table.Row("small", 0.123, 12.34)
	table.Row("none", math.NaN(), 123456.7)
	var text, markdown bytes.Buffer
	require.NoError(t, r.Print(&text, false))
	require.NoError(t, r.Print(&markdown, true))
	assert.Contains(t, text.String(), "│ small │ 0.12 │   12.3 │")
	assert.Contains(t, markdown.String(), "\nA title\n\n| What | p50 | p99 |\n| --- | ---:| ---:|\n| small | 0.12 | 12.3 |\n| none | - | 123457 |\n")
}
