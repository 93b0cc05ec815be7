package datagrams

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/kills"
	"github.com/crsc-io/crsc/testing/load"
)

const containerID = "datagrams"

// readyLimit bounds each wait for something that takes well under a second when
// all is well.
const readyLimit = 30 * time.Second

// Report is what a run has shown.
type Report struct {
	kills.Count
	Served    int              `json:"served"`
	Datagrams status.Datagrams `json:"datagrams"`
	LongestMS float64          `json:"longest_answer_ms"`
}

// Run does everything from bringing the environment up to destroying it.
func Run(ctx context.Context, o kills.Options) (report *Report, err error) {
	if err := o.DefaultsAndValidate("datagrams"); err != nil {
		return nil, err
	}
	err = env.While(ctx, o.Instance, nil, func(e *env.Env) (err error) {
		report, err = play(ctx, e, o)
		return err
	})
	return report, err
}

func play(ctx context.Context, e *env.Env, o kills.Options) (*Report, error) {
	if err := start(ctx, e, o); err != nil {
		return nil, err
	}
	err := kills.Await(ctx, e, containerID, readyLimit, func(ctx context.Context) error { return listens(ctx, e) })
	if err != nil {
		return nil, err
	}
	clients, err := StartClients(ctx, e.Client().Path, At(e.Pod().IP4, e.Pod().IP6), o.Clients)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	r.Count, err = kills.Play(ctx, kills.Plan{
		Env: e, ID: containerID, Kills: o.Kills, Gap: o.Gap, Limit: readyLimit, Progress: o.Progress,
	})
	served, longest, wrong := clients.Stop()
	if err != nil {
		return nil, err
	}
	r.Served, r.LongestMS = served, float64(longest.Microseconds())/1000
	s, err := status.Read(filepath.Dir(e.StatusFile(containerID)))
	if err != nil {
		return nil, err
	}
	if s.Datagrams != nil {
		r.Datagrams = *s.Datagrams
	}
	return r, r.judge(wrong)
}

// start runs this very program as the server.
func start(ctx context.Context, e *env.Env, o kills.Options) error {
	image, err := ociimage.Import(ctx, e, "busybox")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return e.Run(ctx, env.Container{
		ID: containerID, Image: image, Netns: e.Pod().Path,
		Annotations: map[string]string{
			"crsc.io/checkpoint-restore":  "true",
			"crsc.io/checkpoint-interval": o.Interval.String(),
			"crsc.io/recovery-budget":     "unlimited",
			"crsc.io/udp":                 "journal",
		},
		Flags: []string{"--mount=type=bind,src=" + self + ",dst=/server,options=rbind:ro"},
		Args:  []string{"/server", "-serve"},
	})
}

// listens asks the server's TCP side, which is there after the other.
func listens(ctx context.Context, e *env.Env) error {
	d, err := load.NewDialer(e.Client().Path, 1)
	if err != nil {
		return err
	}
	defer d.Close()
	var c net.Conn
	if c, err = d.Dial(ctx, netip.AddrPortFrom(e.Pod().IP4, Port)); err != nil {
		return err
	}
	return c.Close()
}

// judge says what is wrong.
func (r *Report) judge(wrong error) error {
	if wrong != nil {
		r.Faults = append(r.Faults, wrong.Error())
	}
	return r.Judge(ErrFailed, []kills.Fault{
		{Is: r.Differing > 0, What: "a replay came out differently"},
		{Is: r.Datagrams.Journaled == 0, What: "no datagram was journaled"},
		{Is: r.Datagrams.Dropped > 0, What: "datagrams were dropped"},
		{Is: r.Served == 0, What: "nobody was served"},
	})
}
