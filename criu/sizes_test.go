package criu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/regfile"
	"google.golang.org/protobuf/proto"
)

func TestForgetSizesTouchesOnlyWhatIsBelow(t *testing.T) {
	dir := t.TempDir()
	b := binary.NativeEndian.AppendUint32(nil, magicImage)
	b = binary.NativeEndian.AppendUint32(b, magicFiles)
	for i, name := range []string{"vol/data.log", "/vol", "volume/other", "etc/passwd"} {
		e, err := proto.Marshal(&fdinfo.FileEntry{
			Type: fdinfo.FdTypes_REG.Enum(), Id: proto.Uint32(uint32(i)),
			Reg: &regfile.RegFileEntry{Id: proto.Uint32(uint32(i)), Flags: proto.Uint32(0), Pos: proto.Uint64(3),
				Fown: &fown.FownEntry{Uid: proto.Uint32(0), Euid: proto.Uint32(0), Signum: proto.Uint32(0), PidType: proto.Uint32(0), Pid: proto.Uint32(0)},
				Name: proto.String(name), Size: proto.Uint64(7)},
		})
		if err != nil {
			t.Fatal(err)
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(len(e)))
		b = append(b, e...)
	}
	if err := os.WriteFile(filepath.Join(dir, "files.img"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ForgetSizes(dir, []string{"/vol"}); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	if err := eachFile(os.DirFS(dir), func(e *fdinfo.FileEntry) error {
		got[e.GetReg().GetName()] = e.GetReg().Size != nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"vol/data.log": false, "/vol": false, "volume/other": true, "etc/passwd": true}
	for name, has := range want {
		if got[name] != has {
			t.Errorf("%s: has a size: %v, want %v", name, got[name], has)
		}
	}
}
