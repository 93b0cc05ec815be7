package config

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func parseNode(t *testing.T, text string) *Node {
	t.Helper()
	n, err := Parse([]byte(text))
	require.NoError(t, err)
	return n
}

func TestBuiltInDefaults(t *testing.T) {
	c, err := parseNode(t, "").Container(map[string]string{"io.kubernetes.pod": "x"})
	require.NoError(t, err)
	assert.Equal(t, &Config{
		Interval: 10 * time.Second, JournalSize: 4 << 20, JournalRecords: 4000, JournalMaxSize: 256 << 20,
		Durability: DurabilityPageCache, Order: OrderAuto, Budget: Budget{Recoveries: 10, Window: 10 * time.Minute},
		Unreplayable: Unreplayable{Exec: true, Signal: true, Stdin: true, Connection: true},
		StateDir:     "/var/lib/crsc", LogLevel: "info", MaxConcurrentDumps: max(2, runtime.NumCPU()), CheckpointJitter: 0.1,
		PublishKeep: 10, VolumeMaxSize: 256 << 20, DeletedMaxSize: 64 << 20, CheckpointMemory: 512 << 20, Probes: Probes{Limit: time.Second}, Images: Images{SigningKey: "/var/lib/crsc/.keys/signing.pem"},
		ProxyMemory: 64 << 20, MaxConnections: 10000, NodeCheckpointMemory: quarter(t),
	}, c)
}

// quarter is that of the machine's memory, from another source.
func quarter(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	var kib int64
	_, err = fmt.Sscanf(string(b), "MemTotal: %d kB", &kib)
	require.NoError(t, err)
	return kib << 10 / 4
}

func TestImageKeys(t *testing.T) {
	const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	n := parseNode(t, `
state_dir = "/s"
[images]
trusted_keys = ["/etc/a.pem", "/etc/b.pem"]
allow_unsigned = true
encrypt_for = ["`+recipient+`"]
identity_file = "/etc/id"
`)
	want := Images{
		SigningKey: "/s/.keys/signing.pem", TrustedKeys: []string{"/etc/a.pem", "/etc/b.pem"}, AllowUnsigned: true,
		EncryptFor: []string{recipient}, IdentityFile: "/etc/id",
	}
	assert.Equal(t, want, n.Images)
	c, err := n.Container(nil)
	require.NoError(t, err)
	assert.Equal(t, want, c.Images)
	for _, bad := range []string{
		`signing_key = "key.pem"`, `trusted_keys = ["/a/../b"]`, `identity_file = "id"`, `encrypt_for = ["age1x"]`, `encrypt_for = ["ssh-ed25519 AAAA"]`,
	} {
		_, err := Parse([]byte("[images]\n" + bad))
		require.ErrorIs(t, err, ErrMalformed, bad)
		require.ErrorContains(t, err, "images.", bad)
	}
}

func TestRestoreFrom(t *testing.T) {
	n := parseNode(t, "")
	for _, good := range []string{"crsc.local/crsc/default/web:latest", "localhost:5000/a/b_c@sha256:" + strings.Repeat("a", 64)} {
		c, err := n.Container(map[string]string{KeyEnabled: "true", KeyRestoreFrom: good})
		require.NoError(t, err, good)
		assert.Equal(t, good, c.RestoreFrom)
	}
	_, err := n.Container(map[string]string{KeyRestoreFrom: "crsc.local/web:1"})
	require.ErrorIs(t, err, ErrConflict)
}

func TestEveryAnnotationHasAnEffect(t *testing.T) {
	n := parseNode(t, "")
	c, err := n.Container(map[string]string{
		KeyEnabled: "true", KeyInterval: "250ms", KeyJournalSize: "1Mi", KeyJournalRecords: "off",
		KeyJournalMaxSize: "1Gi", KeyJournalFault: "hold", KeyJournalEncryption: "true", KeyDurability: "disk", KeyOrder: "serial", KeyBudget: "5/1h",
		KeyRecoverOOM: "true", KeySafeVolumes: "/b, /a,/b", KeyExcludePorts: "90-100,in:8080, 101,95-96,out:443",
		KeyExcludeCIDRs: "10.1.0.0/16,in:fd00::1, 10.0.0.0/8,out:192.0.2.7", KeyProbes: "pass", KeyInterceptLoopback: "true", KeyUDP: "journal", KeyIntercept: "egress",
		KeyProxyMemory: "1Mi", KeyMaxConnections: "7",
		KeyCron: "30  3 * * 1-5", KeyTarget: "500ms", KeyOnStop: "true", KeyOnPressure: "memory=85.5", KeyUnreplayable: "stdin, exec",
		KeyPublish: "true", KeyPublishKeep: "3", KeyPublishMaxSize: "2Gi",
		KeyPublishHourly: "24", KeyPublishDaily: "7", KeyVolumes: "snapshot", KeyVolumeMaxSize: "1Mi", KeyDeletedMax: "1Gi", KeyImageMemory: "64Mi",
		KeyRestoreFrom: "crsc.local/crsc/default/web:7",
		KeyContainers:  "b, a-1,b", KeyAcrossPods: "true", KeyOverBudget: "fresh",
	})
	require.NoError(t, err)
	assert.Equal(t, "30 3 * * 1-5", c.Cron.String())
	saturday := time.Date(2026, 11, 21, 22, 0, 0, 0, time.Local)
	assert.Equal(t, time.Date(2026, 11, 23, 3, 30, 0, 0, time.Local), c.Cron.Next(saturday))
	c.Cron = Cron{}
	assert.Equal(t, &Config{
		Enabled: true, Interval: 250 * time.Millisecond, JournalSize: 1 << 20, JournalRecords: Off,
		JournalMaxSize: 1 << 30, JournalFault: FaultHold, JournalEncryption: true, Durability: DurabilityDisk, Order: OrderSerial,
		Budget: Budget{Recoveries: 5, Window: time.Hour}, RecoverOOM: true,
		SafeVolumes: []string{"/a", "/b"}, InterceptLoopback: true, JournalUDP: true, Intercept: InterceptEgress, ProxyMemory: 1 << 20, MaxConnections: 7,
		ExcludeIn: Exclude{
			Ports:    []PortRange{{90, 101}, {8080, 8080}},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/128")},
		},
		ExcludeOut: Exclude{
			Ports:    []PortRange{{90, 101}, {443, 443}},
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")},
		},
		RecoveryTarget: 500 * time.Millisecond, OnStop: StopLimit, Pressure: Pressure{Memory: 85.5},
		Unreplayable: Unreplayable{Exec: true, Stdin: true},
		Publish:      true, PublishKeep: 3, PublishMaxSize: 2 << 30, PublishHourly: 24, PublishDaily: 7,
		Volumes: VolumesSnapshot, VolumeMaxSize: 1 << 20, DeletedMaxSize: 1 << 30, CheckpointMemory: 64 << 20,
		RestoreFrom: "crsc.local/crsc/default/web:7", Images: Images{SigningKey: "/var/lib/crsc/.keys/signing.pem"},
		Containers: []string{"a-1", "b"}, AcrossPods: true, OverBudget: OverBudgetFresh,
		StateDir: "/var/lib/crsc", LogLevel: "info", MaxConcurrentDumps: max(2, runtime.NumCPU()), CheckpointJitter: 0.1, NodeCheckpointMemory: quarter(t),
	}, c)
	assert.True(t, c.ExcludeIn.HasPort(100))
	assert.False(t, c.ExcludeIn.HasPort(102))

	before, err := n.Container(nil)
	require.NoError(t, err)
	assert.False(t, before.Enabled, "one container's annotations must not leak into the node's defaults")
}

func TestMalformedValuesNameKeyValueAndForm(t *testing.T) {
	bad := map[string][]string{
		KeyEnabled:        {"", "yes", "True", "1"},
		KeyInterval:       {"", "0", "99ms", "-5s", "10", "ten seconds", "Off"},
		KeyJournalSize:    {"", "4M", "4MB", "1.5Mi", "-4Mi", "+4Mi", "9999999999999Ti", "63Ki", "0", "4 Mi", "Mi"},
		KeyJournalRecords: {"", "0", "-1", "1e3", "0x10", "1_000"},
		KeyJournalMaxSize: {"off", "1", ""},
		KeyJournalFault:   {"", "ignore", "Hold"},
		KeyDurability:     {"", "fsync", "Disk"},
		KeyOrder:          {"", "strict"},
		KeyBudget:         {"", "5", "5/", "/5m", "-1/5m", "5/0s", "5/10", "1.5/1m", "99999999999999999999/1m"},
		KeyRecoverOOM:     {"", "on"},
		KeyRestoreFrom:    {"", "web", "web:latest", "crsc.local/../web:1", "crsc.local/web:1 ", "crsc.local/Web:1", "crsc.local/web@sha256:12", "crsc.local/web"},
		KeySafeVolumes:    {"data", "/data/", "/a/../b", "/a,,/b", "/", "/a\x00"},
		KeyExcludePorts:   {"0", "65536", "80-", "90-80", "http", "80,,81", "-1", "in:", "in:out:80", "both:80"},
		KeyCron:           {"", "* * * *", "* * * * * *", "@hourly", "60 * * * *", "*/0 * * * *", "0 0 30 2 *", "CRON_TZ=UTC", "TZ=0", "CRON_TZ=Mars/Base 0 0 * * *", "CRON_TZ= * * * *", "TZ=UTC * * * * *", "a b c d e"},
		KeyTarget:         {"", "0", "9ms", "-1s", "500"},
		KeyOnStop:         {"", "yes", "0s", "9ms", "-1s", "500"},
		KeyOnPressure:     {"", "90", "memory", "memory=", "memory=0", "memory=101", "cpu=5", "memory=90,memory=80", "memory=9,", "psi=1e1", "psi=nan", "True"},
		KeyPublish:        {"", "yes"},
		KeyPublishKeep:    {"", "0", "-1", "10001", "off"},
		KeyPublishHourly:  {"", "-1", "10001", "off"},
		KeyPublishDaily:   {"", "-1", "1.5"},
		KeyPublishMaxSize: {"", "0", "1023Ki", "2G"},
		KeyVolumes:        {"", "copy", "Safe"},
		KeyAcrossPods:     {"", "yes"},
		KeyOverBudget:     {"", "Resume", "restart"},
		KeyContainers:     {"A", "a,,b", "-a", "a_b", "a/b"},
		KeyDeletedMax:     {"", "0", "4Gi", "off"},
		KeyVolumeMaxSize:  {"", "63Ki", "off", "1G"},
		KeyImageMemory:    {"", "0", "1023Ki", "1G", "on"},
		KeyUnreplayable:   {"", "execs", "exec,exec", "exec,", "off,exec", "true"},

		KeyExcludeCIDRs:      {"10.0.0.0/33", "10.0.0/8", "in:", "fe80::1%eth0", "::ffff:10.0.0.0/104", "a,,b"},
		KeyProbes:            {"", "0", "0s", "-1s", "1", "Hold", "off"},
		KeyInterceptLoopback: {"", "yes"},
		KeyUDP:               {"", "true", "Journal", "journal:53"},
		KeyProxyMemory:       {"", "off", "1023Ki", "1M"},
		KeyMaxConnections:    {"", "0", "-1", "20001", "off"},
		KeyIntercept:         {"", "none", "in", "Both"},

		KeyJournalEncryption: {"", "yes", "aes"},
	}
	n := parseNode(t, "")
	require.Len(t, bad, len(keys()), "a new annotation needs its malformed values here")
	for name, values := range bad {
		for _, v := range append(values, strings.Repeat("9", maxValue+1)) {
			_, err := n.Container(map[string]string{name: v})
			if !assert.ErrorIs(t, err, ErrMalformed, "%s=%q", name, v) {
				continue
			}
			k, _ := find(keys(), name)
			assert.ErrorContains(t, err, name)
			assert.ErrorContains(t, err, k.form)
			assert.Less(t, len(err.Error()), 600, "an error must stay readable whatever the value is")
		}
	}
}

func TestUnknownKeySuggestsTheNearest(t *testing.T) {
	_, err := parseNode(t, "").Container(map[string]string{"crsc.io/checkpoint-intervall": "2s"})
	require.ErrorIs(t, err, ErrUnknownKey)
	assert.EqualError(t, err, `crsc.io/checkpoint-intervall="2s": unknown key; did you mean crsc.io/checkpoint-interval?`)
	_, err = parseNode(t, "").Container(map[string]string{"crsc.io/": ""})
	require.ErrorIs(t, err, ErrUnknownKey)
}

func TestJournalLimitBelowTrigger(t *testing.T) {
	_, err := parseNode(t, "").Container(map[string]string{KeyJournalMaxSize: "1Mi"})
	require.ErrorIs(t, err, ErrConflict)
	_, err = parseNode(t, "").Container(map[string]string{KeyJournalMaxSize: "1Mi", KeyJournalSize: "off"})
	require.NoError(t, err)
	_, err = Parse([]byte("[defaults]\njournal-max-size = \"1Mi\""))
	require.ErrorIs(t, err, ErrConflict)
}

const strictNode = `
state_dir = "/srv/crsc"
criu = "/opt/criu"
log_level = "debug"
[defaults]
checkpoint-interval = "30s"
"crsc.io/durability" = "disk"
[annotations]
allow = ["checkpoint-*", "crsc.io/durability", "recovery-budget"]
forbid = ["checkpoint-journal-size"]
[bounds.checkpoint-interval]
min = "5s"
max = "1m"
[bounds.durability]
min = "page-cache"
[bounds.recovery-budget]
max = "60/1h"
`

func TestNodeFile(t *testing.T) {
	n := parseNode(t, strictNode)
	c, err := n.Container(map[string]string{KeyEnabled: "true"})
	require.NoError(t, err)
	assert.Equal(t, 30*time.Second, c.Interval)
	assert.Equal(t, DurabilityDisk, c.Durability)
	assert.Equal(t, "/srv/crsc", c.StateDir)
	assert.Equal(t, "/opt/criu", c.CRIU)
	assert.Equal(t, "debug", c.LogLevel)

	for _, tc := range []struct {
		key, value string
		want       error
	}{
		{KeyInterval, "5s", nil}, {KeyInterval, "4s", ErrOutOfBounds}, {KeyInterval, "61s", ErrOutOfBounds},
		{KeyInterval, "off", ErrOutOfBounds}, {KeyJournalSize, "1Mi", ErrForbidden}, {KeyOrder, "serial", ErrForbidden},
		{KeyJournalRecords, "5", nil}, {KeyDurability, "memory", ErrOutOfBounds}, {KeyDurability, "page-cache", nil},
		{KeyBudget, "unlimited", ErrOutOfBounds}, {KeyBudget, "1/1m", nil}, {KeyBudget, "2/1m", ErrOutOfBounds},
	} {
		_, err := n.Container(map[string]string{tc.key: tc.value})
		if tc.want == nil {
			assert.NoError(t, err)
			continue
		}
		assert.ErrorIs(t, err, tc.want, "%s=%s", tc.key, tc.value)
	}
}

func TestKeepProcessorsAwake(t *testing.T) {
	for text, sleep := range map[string]bool{"": false, "keep_processors_awake = true": false, "keep_processors_awake = false": true} {
		c, err := parseNode(t, text).Container(nil)
		require.NoError(t, err)
		assert.Equal(t, sleep, c.LetProcessorsSleep, text)
	}
	_, err := Parse([]byte("keep_processors_awake = 'yes'"))
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestNodeLimits(t *testing.T) {
	n := parseNode(t, "max_concurrent_dumps = 0\ncheckpoint_jitter = 0")
	c, err := n.Container(nil)
	require.NoError(t, err)
	assert.Zero(t, c.MaxConcurrentDumps)
	assert.Zero(t, c.CheckpointJitter)
	c, err = parseNode(t, "max_concurrent_dumps = 7\ncheckpoint_jitter = 0.5\npublish_max_size = '20Gi'").Container(nil)
	require.NoError(t, err)
	assert.Equal(t, 7, c.MaxConcurrentDumps)
	assert.Equal(t, 0.5, c.CheckpointJitter)
	assert.EqualValues(t, 20<<30, c.NodePublishMaxSize)
	for text, want := range map[string]int64{"": quarter(t), "checkpoint_memory_max_size = '3Gi'": 3 << 30, "checkpoint_memory_max_size = 'off'": Off} {
		c, err := parseNode(t, text).Container(nil)
		require.NoError(t, err)
		assert.Equal(t, want, c.NodeCheckpointMemory, text)
	}
}

// TestCronWhenTheClockIsMoved: at night once a year 02:30 is skipped, and shown twice
// in another.
func TestCronWhenTheClockIsMoved(t *testing.T) {
	for _, tc := range []struct{ cron, after, want string }{
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"CRON_TZ=Europe/Berlin 0 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"CRON_TZ=Europe/Berlin 0 3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T01:00:00Z"},
		{"CRON_TZ=Europe/Berlin 30 2 29 3 *", "2026-01-01T00:00:00Z", "2026-03-29T01:00:00Z 2027-03-29T00:30:00Z"},
		{"CRON_TZ=Europe/Berlin 15 * * * *", "2026-03-29T00:10:00Z", "2026-03-29T00:15:00Z 2026-03-29T01:15:00Z 2026-03-29T02:15:00Z"},
		{"CRON_TZ=Europe/Berlin */20 * * * *", "2026-03-29T00:30:00Z", "2026-03-29T00:40:00Z 2026-03-29T01:00:00Z 2026-03-29T01:20:00Z"},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-25T01:30:00Z 2026-10-26T01:30:00Z"},
		{"CRON_TZ=Europe/Berlin 0 * * * *", "2026-10-24T23:30:00Z", "2026-10-25T00:00:00Z 2026-10-25T01:00:00Z 2026-10-25T02:00:00Z"},
		// At midnight, and by half an hour.
		{"CRON_TZ=America/Santiago 30 0 * * *", "2026-09-05T12:00:00Z", "2026-09-06T04:00:00Z 2026-09-07T03:30:00Z"},
		{"CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		{"CRON_TZ=UTC 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T02:30:00Z 2026-03-30T02:30:00Z"},
	} {
		c, err := parseCron(tc.cron)
		require.NoError(t, err)
		at, err := time.Parse(time.RFC3339, tc.after)
		require.NoError(t, err)
		var got []string
		for range strings.Fields(tc.want) {
			at = c.Next(at)
			got = append(got, at.UTC().Format(time.RFC3339))
		}
		assert.Equal(t, tc.want, strings.Join(got, " "), tc.cron)
	}
}

func TestCronHasATimeZone(t *testing.T) {
	c, err := parseCron("CRON_TZ=Asia/Tokyo 0 9 * * *")
	require.NoError(t, err)
	got := c.Next(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))
	assert.True(t, got.Equal(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)), got)
	assert.Equal(t, "off", Cron{}.String())
	assert.True(t, Cron{}.Next(time.Now()).IsZero())
}

func TestPressureForms(t *testing.T) {
	for text, want := range map[string]Pressure{
		"true": {Memory: 90, Stalled: 20}, "false": {}, "psi=5": {Stalled: 5}, "psi=5, memory=100": {Memory: 100, Stalled: 5},
	} {
		got, err := parsePressure(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, text == "false", got.IsZero())
	}
}

func TestFaultyNodeFiles(t *testing.T) {
	for text, want := range map[string]error{
		`state-dir = "/x"`:                                         ErrUnknownKey,
		`state_dir = "x"`:                                          ErrMalformed,
		`state_dir = "/"`:                                          ErrMalformed,
		`criu = "criu"`:                                            ErrMalformed,
		`log_level = "loud"`:                                       ErrMalformed,
		`state_dir = `:                                             ErrMalformed,
		`state_dir = 5`:                                            ErrMalformed,
		`max_concurrent_dumps = -1`:                                ErrMalformed,
		`max_concurrent_dumps = "2"`:                               ErrMalformed,
		`checkpoint_jitter = 0.51`:                                 ErrMalformed,
		`checkpoint_jitter = -0.1`:                                 ErrMalformed,
		`checkpoint_jitter = nan`:                                  ErrMalformed,
		`checkpoint_memory_max_size = "1Ki"`:                       ErrMalformed,
		`checkpoint_memory_max_size = 5`:                           ErrMalformed,
		`publish_max_size = "20G"`:                                 ErrMalformed,
		"[defaults]\nintervall = '1s'":                             ErrUnknownKey,
		"[defaults]\ncheckpoint-interval = '1'":                    ErrMalformed,
		"[defaults]\ncheckpoint-interval = 10":                     ErrMalformed,
		"[annotations]\nforbid = ['volumen']":                      ErrUnknownKey,
		"[annotations]\nforbid = ['[']":                            ErrUnknownKey,
		"[bounds.order]\nmin = 'serial'":                           ErrMalformed,
		"[bounds.checkpoint-interval]\nmin = '20s'":                ErrOutOfBounds,
		"[bounds.checkpoint-interval]\nmin = '20s'\nmax = '10s'":   ErrConflict,
		"[bounds.checkpoint-interval]\nleast = '20s'":              ErrUnknownKey,
		"[bounds.checkpoint-interval]\nmin = 'a'":                  ErrMalformed,
		"[bounds.checkpoint-journal-records]\nmax = '10'\nmin='1'": ErrOutOfBounds,
	} {
		_, err := Parse([]byte(text))
		assert.ErrorIs(t, err, want, "%s", text)
	}
}

func TestLoadFindsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.toml")
	require.NoError(t, os.WriteFile(file, []byte(`state_dir = "/a"`), 0o600))
	n, err := Load(file)
	require.NoError(t, err)
	assert.Equal(t, "/a", n.StateDir)

	t.Setenv(EnvNodeFile, file)
	n, err = Load("")
	require.NoError(t, err)
	assert.Equal(t, "/a", n.StateDir)

	t.Setenv(EnvNodeFile, file+".missing")
	_, err = Load("")
	require.ErrorIs(t, err, os.ErrNotExist, "a file that was named must exist")

	require.NoError(t, os.WriteFile(file, []byte("\n\nstat_dir = \"/a\""), 0o600))
	_, err = Load(file)
	require.ErrorIs(t, err, ErrUnknownKey)
	assert.ErrorContains(t, err, file)
	assert.ErrorContains(t, err, "line 3")
}

func TestSizesRoundTrip(t *testing.T) {
	for _, n := range []int64{0, 1, 1023, 1024, 1 << 20, 3 << 19, 1 << 40, 5 << 40, math.MaxInt64} {
		got, err := ParseSize(FormatSize(n))
		require.NoError(t, err)
		assert.Equal(t, n, got)
	}
}

func TestDocumentationMatchesTheCode(t *testing.T) {
	const file = "../docs/CONFIGURATION.md"
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	const begin, end = "<!-- annotations -->\n", "<!-- /annotations -->\n"
	head, rest, ok := strings.Cut(string(data), begin)
	require.True(t, ok, "%s needs the line %s", file, begin)
	table, tail, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s needs the line %s", file, end)
	if table != Table() && os.Getenv("CRSC_UPDATE_DOCS") != "" {
		require.NoError(t, os.WriteFile(file, []byte(head+begin+Table()+end+tail), 0o644))
		return
	}
	assert.Equal(t, Table(), table, "run: CRSC_UPDATE_DOCS=1 go test ./config")

	_, example, ok := strings.Cut(tail, "```toml\n")
	require.True(t, ok)
	example, _, _ = strings.Cut(example, "```")
	_, err = Parse([]byte(example))
	assert.NoError(t, err, "the example of %s must be a valid node file", file)
}
