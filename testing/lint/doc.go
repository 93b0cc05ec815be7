// Package lint checks what the general linters cannot know about this
// repository: which package may import which (the map in CONTRIBUTING.md), how
// long a file may be, that every package is described, and that nothing is
// left to do in a comment.
//
// It reads source files only, and works in a tree that does not compile.
package lint
