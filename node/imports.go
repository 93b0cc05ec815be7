package node

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// mainConfig is what we read of containerd's main configuration file.
type mainConfig struct {
	Version int      `toml:"version"`
	Imports []string `toml:"imports"`
}

func parseMain(text []byte) (m mainConfig, err error) {
	if err := toml.Unmarshal(text, &m); err != nil {
		return m, err
	}
	if m.Version < 2 || m.Version > 4 {
		return m, fmt.Errorf("version %d: 2, 3 and 4 are known; `containerd config migrate` makes a newer one of an older one", m.Version)
	}
	return m, nil
}

// imported says that the file at main already imports the drop-in.
func (m mainConfig) imported(main, dropIn string) bool {
	for _, pattern := range m.Imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(main), pattern)
		}
		if ok, err := path.Match(pattern, dropIn); ok && err == nil {
			return true
		}
	}
	return false
}

// addImport adds the drop-in to the imports of a configuration file, and leaves
// every other byte as it is, so that removeImport gives back the same file.
func addImport(text []byte, dropIn string) ([]byte, error) {
	at, found, err := importsArray(text)
	if err != nil {
		return nil, err
	}
	if !found {
		return append([]byte(importLine(dropIn)), text...), nil
	}
	item := importItem(dropIn)
	return append(append(append([]byte{}, text[:at]...), item...), text[at:]...), nil
}

// removeImport undoes addImport.
func removeImport(text []byte, dropIn string) ([]byte, error) {
	if rest, ok := bytes.CutPrefix(text, []byte(importLine(dropIn))); ok {
		return rest, nil
	}
	at, found, err := importsArray(text)
	if err != nil || !found {
		return text, err
	}
	before, after := text[:at], text[at:]
	rest, ok := bytes.CutPrefix(after, []byte(importItem(dropIn)))
	if !ok {
		return text, nil // somebody else's import, or one that was moved since
	}
	return append(append([]byte{}, before...), rest...), nil
}

// importLine and importItem are what addImport adds: a line, or an element of
// an array, which may be followed by nothing.
func importLine(dropIn string) string { return "imports = [" + strconv.Quote(dropIn) + "]\n" }
func importItem(dropIn string) string { return strconv.Quote(dropIn) + ", " }

// importsArray finds the position after the opening bracket of the top-level
// key imports.
func importsArray(text []byte) (at int, found bool, err error) {
	var p unstable.Parser
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			break // the keys of the top level end here
		}
		if e.Kind != unstable.KeyValue {
			continue
		}
		key := e.Key()
		if !key.Next() || string(key.Node().Data) != "imports" || !key.IsLast() {
			continue
		}
		start := int(p.Range(key.Node().Data).Offset)
		equals := bytes.IndexByte(text[start:], '=')
		bracket := bytes.IndexByte(text[start:], '[')
		if e.Value().Kind != unstable.Array || equals < 0 || bracket < equals ||
			strings.TrimSpace(string(text[start+equals+1:start+bracket])) != "" {
			return 0, false, fmt.Errorf("imports is not a plain array")
		}
		return start + bracket + 1, true, nil
	}
	return 0, false, p.Error()
}
