package criu

import (
	"errors"
	"strings"
	"testing"
)

func TestDecisiveLine(t *testing.T) {
	for _, tc := range []struct{ name, log, want string }{
		{"empty", "", ""},
		{"no error", "(00.000458) Version: 4.2.1 (gitid 0)\n(00.023364) Will dump/restore TCP connections\n", ""},
		{
			"cause before the consequences",
			"(00.023392) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n" +
				"(00.030175)      1: Error (soccr/soccr.c:529): Can't connect inet socket back: Cannot assign requested address\n" +
				"(00.030189)      1: Error (criu/files.c:1221): Unable to open fd=8 id=0x1a\n" +
				"(00.031481) Error (criu/cr-restore.c:2331): Restoring FAILED.\n",
			"Error (soccr/soccr.c:529): Can't connect inet socket back: Cannot assign requested address",
		},
		{
			"only consequences",
			"(00.1) Error (criu/cr-service.c:236): RPC client reported script error\n(00.2) Error (criu/cr-dump.c:1975): Dumping FAILED.\n",
			"Error (criu/cr-service.c:236): RPC client reported script error",
		},
		{"harmless", "(00.023392) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n", ""},
		{"no end of line", "Error (criu/sk-inet.c:1): Unsupported proto 262", "Error (criu/sk-inet.c:1): Unsupported proto 262"},
	} {
		if got := DecisiveLine(tc.log); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestErrorKeepsLog(t *testing.T) {
	cause := errors.New("failed")
	err := error(&Error{Op: "dump", Line: "Error (a.c:1): no", Log: "whole log", Err: cause})
	if !errors.Is(err, cause) || err.Error() != "criu dump: failed: Error (a.c:1): no" {
		t.Errorf("error is %q", err)
	}
	if err := (&Error{Op: "dump", Err: cause}).Error(); err != "criu dump: failed" {
		t.Errorf("without a line the error is %q", err)
	}
}

func TestFindings(t *testing.T) {
	out := "Warn  (criu/kerndat.c:1): x\nError (criu/cr-check.c:1042): UFFD is not supported\nError (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: no\n"
	if got := findings(out); strings.Join(got, "|") != "UFFD is not supported" {
		t.Errorf("findings are %q", got)
	}
}

func TestParseMount(t *testing.T) {
	m, ok := parseMount(`79 77 0:50 / /dev/a\040b\134c ro,nosuid shared:5 - tmpfs shm rw,size=65536k`)
	if !ok || m.target != `/dev/a b\c` || m.fstype != "tmpfs" || m.device != "0:50" || !m.ro || m.root != "/" {
		t.Errorf("%+v %v", m, ok)
	}
	for _, bad := range []string{"", "1 2 3", "1 2 0:1 / /x rw", "1 2 0:1 / /x rw - "} {
		if _, ok := parseMount(bad); ok {
			t.Errorf("%q is taken for a mount", bad)
		}
	}
}
