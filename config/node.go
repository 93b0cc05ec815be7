package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	// DefaultNodeFile is read when nothing else is named; it may be absent.
	DefaultNodeFile = "/etc/crsc/config.toml"
	// EnvNodeFile is the environment variable that names another node file.
	EnvNodeFile = "CRSC_CONFIG"
	// DefaultStateDir is the built-in default of state_dir.
	DefaultStateDir = "/var/lib/crsc"
)

// Node is what the administrator decided for a node. It is immutable and may
// be used concurrently.
type Node struct {
	// StateDir, CRIU and LogLevel are as in [Config].
	StateDir, CRIU, LogLevel string
	// MaxConcurrentDumps and CheckpointJitter are as in [Config].
	MaxConcurrentDumps int
	CheckpointJitter   float64
	// LetProcessorsSleep is as in [Config].
	LetProcessorsSleep bool
	// NodePublishMaxSize and NodeCheckpointMemory are as in [Config].
	NodePublishMaxSize, NodeCheckpointMemory int64
	// Images are the node's keys for checkpoint images.
	Images Images

	base   Config // built-in and node defaults, validated
	allow  []string
	forbid []string
	bounds map[string]bound
}

// bound limits what annotations may say; nil means no limit.
type bound struct {
	min, max *limit
}

type limit struct {
	text string
	rank float64
}

// nodeFile is the TOML form of Node.
type nodeFile struct {
	StateDir    string               `toml:"state_dir"`
	CRIU        string               `toml:"criu"`
	LogLevel    string               `toml:"log_level"`
	MaxDumps    *int                 `toml:"max_concurrent_dumps"`
	Jitter      *float64             `toml:"checkpoint_jitter"`
	Awake       *bool                `toml:"keep_processors_awake"`
	PublishMax  string               `toml:"publish_max_size"`
	MemoryMax   *string              `toml:"checkpoint_memory_max_size"`
	Images      nodeImages           `toml:"images"`
	Defaults    map[string]string    `toml:"defaults"`
	Annotations nodeLists            `toml:"annotations"`
	Bounds      map[string]nodeBound `toml:"bounds"`
}

type nodeLists struct {
	Allow  []string `toml:"allow"`
	Forbid []string `toml:"forbid"`
}

type nodeBound struct {
	Min *string `toml:"min"`
	Max *string `toml:"max"`
}

// Load reads the node file. An empty nodeFile means the one that the
// environment variable CRSC_CONFIG names, else /etc/crsc/config.toml, which
// alone may be absent: then the built-in defaults hold. Errors name the file
// and wrap one of the sentinels of this package, or that of the failed read.
func Load(nodeFile string) (*Node, error) {
	mayBeAbsent := false
	if nodeFile == "" {
		nodeFile = os.Getenv(EnvNodeFile)
	}
	if nodeFile == "" {
		nodeFile, mayBeAbsent = DefaultNodeFile, true
	}
	data, err := os.ReadFile(nodeFile)
	if mayBeAbsent && errors.Is(err, fs.ErrNotExist) {
		data, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("node file: %w", err)
	}
	n, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("node file %s: %w", nodeFile, err)
	}
	return n, nil
}

// Parse is Load for the bytes of a node file.
func Parse(data []byte) (*Node, error) {
	file := nodeFile{StateDir: DefaultStateDir, LogLevel: "info", PublishMax: "off"}
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, tomlError(err)
	}
	n := &Node{StateDir: file.StateDir, CRIU: file.CRIU, LogLevel: file.LogLevel, bounds: map[string]bound{}}
	if err := n.checkPaths(); err != nil {
		return nil, err
	}
	if err := n.readLimits(&file); err != nil {
		return nil, err
	}
	n.base = Config{
		StateDir: n.StateDir, CRIU: n.CRIU, LogLevel: n.LogLevel,
		MaxConcurrentDumps: n.MaxConcurrentDumps, CheckpointJitter: n.CheckpointJitter, LetProcessorsSleep: n.LetProcessorsSleep,
		NodePublishMaxSize: n.NodePublishMaxSize, NodeCheckpointMemory: n.NodeCheckpointMemory,
	}
	for _, step := range []func(*nodeFile) error{n.readImages, n.readDefaults, n.readLists, n.readBounds} {
		if err := step(&file); err != nil {
			return nil, err
		}
	}
	if err := n.base.validate(); err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	return n, nil
}

// Container joins the node's defaults with the annotations of one container.
// Annotations without the prefix crsc.io/ are ignored. Of several faulty keys
// the first in alphabetical order is reported.
func (n *Node) Container(annotations map[string]string) (*Config, error) {
	c, table := n.base.clone(), keys()
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(name, Prefix) {
			continue
		}
		value := annotations[name]
		k, err := find(table, name)
		if err != nil {
			return nil, withValue(err, value)
		}
		if !n.allowed(k.name) {
			return nil, &KeyError{Key: name, Value: value, Err: ErrForbidden, Hint: "see [annotations] in the node file"}
		}
		if err := k.set(c, value); err != nil {
			return nil, err
		}
		if err := n.checkBounds(k, c, value); err != nil {
			return nil, err
		}
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (n *Node) checkPaths() error {
	if !filepath.IsAbs(n.StateDir) || filepath.Clean(n.StateDir) != n.StateDir || n.StateDir == "/" {
		return &KeyError{Key: "state_dir", Value: n.StateDir, Form: "an absolute path without . and ..", Err: ErrMalformed}
	}
	if n.CRIU != "" && !filepath.IsAbs(n.CRIU) {
		return &KeyError{Key: "criu", Value: n.CRIU, Form: "the absolute path of the criu binary", Err: ErrMalformed}
	}
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, n.LogLevel) {
		return &KeyError{Key: "log_level", Value: n.LogLevel, Form: "trace, debug, info, warn or error", Err: ErrMalformed}
	}
	return nil
}

// defaultJitter is enough to spread the containers of a node within ten
// intervals of their start in lockstep.
const defaultJitter = 0.1

// defaultDumps is as many as the node has processors: a dump keeps one of them
// busy. A second one is let in on the smallest nodes, or a stuck dump would hold
// up all others.
func defaultDumps() int { return max(2, runtime.NumCPU()) }

func (n *Node) readLimits(file *nodeFile) error {
	n.MaxConcurrentDumps, n.CheckpointJitter = defaultDumps(), defaultJitter
	if v := file.MaxDumps; v != nil {
		if *v < 0 || *v > 10000 {
			return &KeyError{Key: "max_concurrent_dumps", Value: strconv.Itoa(*v), Form: "a whole number, 0 for no limit", Err: ErrMalformed}
		}
		n.MaxConcurrentDumps = *v
	}
	if v := file.Jitter; v != nil {
		if !(*v >= 0 && *v <= 0.5) { // refuses NaN as well
			return &KeyError{Key: "checkpoint_jitter", Value: strconv.FormatFloat(*v, 'g', -1, 64), Form: "a fraction from 0.0 to 0.5", Err: ErrMalformed}
		}
		n.CheckpointJitter = *v
	}
	n.LetProcessorsSleep = file.Awake != nil && !*file.Awake
	if v := file.PublishMax; v != "off" {
		size, err := sizeAtLeast(v, minPublishSize)
		if err != nil {
			return &KeyError{Key: "publish_max_size", Value: v, Form: `a number of bytes of at least 1Mi such as "20Gi", or "off"`, Err: ErrMalformed}
		}
		n.NodePublishMaxSize = size
	}
	return n.readMemoryLimit(file.MemoryMax)
}

func (n *Node) readDefaults(file *nodeFile) error {
	table := keys()
	for _, k := range table {
		if err := k.set(&n.base, k.def); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Defaults)) {
		k, err := find(table, name)
		if err == nil {
			err = k.set(&n.base, file.Defaults[name])
		}
		if err != nil {
			return fmt.Errorf("defaults: %w", withValue(err, file.Defaults[name]))
		}
	}
	return nil
}

func (n *Node) readLists(file *nodeFile) error {
	n.allow, n.forbid = file.Annotations.Allow, file.Annotations.Forbid
	table := keys()
	for _, pattern := range slices.Concat(n.allow, n.forbid) {
		matches := func(k key) bool { return match(pattern, k.name) }
		if !slices.ContainsFunc(table, matches) {
			return &KeyError{Key: "annotations", Value: pattern, Err: ErrUnknownKey,
				Form: `annotation names or patterns such as "checkpoint-*"`, Hint: "it matches no annotation; the nearest is " + nearest(table, Prefix+pattern)}
		}
	}
	return nil
}

func (n *Node) readBounds(file *nodeFile) error {
	table := keys()
	for _, name := range slices.Sorted(maps.Keys(file.Bounds)) {
		k, err := find(table, name)
		if err != nil {
			return fmt.Errorf("bounds: %w", err)
		}
		if k.rank == nil {
			return fmt.Errorf("bounds: %w", &KeyError{Key: k.name, Err: ErrMalformed, Hint: "this annotation has no order, so it cannot have bounds; use allow and forbid"})
		}
		var b bound
		for _, side := range []struct {
			value *string
			to    **limit
		}{{file.Bounds[name].Min, &b.min}, {file.Bounds[name].Max, &b.max}} {
			if side.value == nil {
				continue
			}
			var scratch Config
			if err := k.set(&scratch, *side.value); err != nil {
				return fmt.Errorf("bounds: %w", err)
			}
			*side.to = &limit{text: *side.value, rank: k.rank(&scratch)}
		}
		if b.min != nil && b.max != nil && b.min.rank > b.max.rank {
			return fmt.Errorf("bounds: %w", &KeyError{Key: k.name, Value: b.min.text, Err: ErrConflict, Hint: "min is above max, which is " + b.max.text})
		}
		n.bounds[k.name] = b
		if err := n.checkBounds(k, &n.base, "the default"); err != nil {
			return fmt.Errorf("bounds: %w; set another one under [defaults]", err)
		}
	}
	return nil
}

func (n *Node) checkBounds(k key, c *Config, value string) error {
	b, ok := n.bounds[k.name]
	if !ok {
		return nil
	}
	rank := k.rank(c)
	if b.min != nil && rank < b.min.rank {
		return &KeyError{Key: k.name, Value: value, Err: ErrOutOfBounds, Hint: "the least is " + b.min.text}
	}
	if b.max != nil && rank > b.max.rank {
		return &KeyError{Key: k.name, Value: value, Err: ErrOutOfBounds, Hint: "the most is " + b.max.text}
	}
	return nil
}

// allowed: forbid wins; an empty allow list allows everything.
func (n *Node) allowed(name string) bool {
	matches := func(pattern string) bool { return match(pattern, name) }
	if slices.ContainsFunc(n.forbid, matches) {
		return false
	}
	return len(n.allow) == 0 || slices.ContainsFunc(n.allow, matches)
}

// match compares the part after the prefix with a shell pattern.
func match(pattern, name string) bool {
	ok, err := path.Match(strings.TrimPrefix(pattern, Prefix), strings.TrimPrefix(name, Prefix))
	return err == nil && ok
}

func withValue(err error, value string) error {
	var k *KeyError
	if errors.As(err, &k) {
		k.Value = value
	}
	return err
}

// tomlError keeps the line that go-toml points at, and tells an unknown key
// from bad syntax.
func tomlError(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: %w", row, &KeyError{
			Key: strings.Join(strict.Errors[0].Key(), "."), Err: ErrUnknownKey,
			Form: "state_dir, criu, log_level, max_concurrent_dumps, checkpoint_jitter, keep_processors_awake, publish_max_size, checkpoint_memory_max_size, [images], [defaults], [annotations] and [bounds.NAME]"})
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("line %d column %d: %w: %s", row, column, ErrMalformed, decode.Error())
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
