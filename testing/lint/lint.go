package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one finding.
type Problem struct {
	File string // relative to the root
	Line int    // from 1; 0: the file as a whole
	Text string
}

// String has the form that editors understand.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d: %s", p.File, max(p.Line, 1), p.Text)
}

// unfinished finds marks of work that was put off. It is put together so that
// it does not find itself.
func unfinished() *regexp.Regexp {
	return regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}, "|") + `)\b`)
}

// Check examines all Go files below root. The error says that a file could not
// be read or parsed.
func Check(root string) ([]Problem, error) {
	var problems []Problem
	described := map[string]bool{} // packages, true: there is a doc.go
	marks := unfinished()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "out") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found, isMain, err := checkFile(path, filepath.ToSlash(rel), marks)
		problems = append(problems, found...)
		if dir := filepath.Dir(rel); !isMain {
			described[dir] = described[dir] || name == "doc.go"
		}
		return err
	})
	for _, dir := range slices.Sorted(maps.Keys(described)) {
		if !described[dir] {
			problems = append(problems, Problem{File: filepath.Join(dir, "doc.go"), Text: "the package has no doc.go"})
		}
	}
	return problems, err
}

func checkFile(path, rel string, marks *regexp.Regexp) (problems []Problem, isMain bool, err error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, false, err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.ParseComments)
	if err != nil {
		return nil, false, err
	}
	add := func(at token.Pos, format string, args ...any) {
		problems = append(problems, Problem{File: rel, Line: files.Position(at).Line, Text: fmt.Sprintf(format, args...)})
	}
	if n := bytes.Count(source, []byte("\n")); n > maxLines && !ast.IsGenerated(file) {
		problems = append(problems, Problem{File: rel, Line: n, Text: fmt.Sprintf("%d lines, %d are allowed: split the file", n, maxLines)})
	}
	pkg, test := filepath.ToSlash(filepath.Dir(rel)), strings.HasSuffix(rel, "_test.go")
	table := rules()
	for _, spec := range file.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, false, err
		}
		if why := forbidden(table, pkg, target, test); why != "" {
			add(spec.Pos(), "%s must not import %s: %s", pkg, target, why)
		}
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if m := marks.FindString(c.Text); m != "" {
				add(c.Pos(), "%s in a comment: do it, or write an issue", m)
			}
		}
	}
	return problems, file.Name.Name == "main", nil
}
