package cases

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/status"
)

// publishedImages: a pod's checkpoint images are as many as are to be kept, under
// whatever names containerd and its CRI plugin know images, and a pinned one stays.
func publishedImages(t *T) {
	const keep = 2
	ns := t.namespace()
	before := imageRecords(t)
	settings := fmt.Sprintf(`1s, crsc.io/publish: "true", crsc.io/publish-keep: "%d"}`, keep)
	t.apply(ns, strings.Replace(head, "1s}", settings, 1)+"  containers:"+probedContainer)
	p := t.ready(ns, "p")
	p.protected("app")
	pinned := p.pinImage("app")
	last := published(t, p, 3*keep)
	t.figures["published"] = float64(last.Sequence)
	ours := "crsc.local/crsc/k8s.io/" + p.containerID("app") + ":"
	t.await(func(context.Context) error {
		var tags, others []string
		for _, name := range imageRecords(t) {
			if tag, ok := strings.CutPrefix(name, ours); ok {
				tags = append(tags, tag)
			} else if !slices.Contains(before, name) {
				others = append(others, name)
			}
		}
		if !slices.Contains(tags, pinned) || !slices.Contains(tags, "latest") || len(tags) != keep+2 || len(others) > 0 {
			return fmt.Errorf("images %q, and the names %q; want %d, latest, and the pinned %s", tags, others, keep, pinned)
		}
		return nil
	})
	t.worst("recovery_ms", p.kill("app"))
}

// published waits until a container of a pod has n images more.
func published(t *T, p *pod, n int) *status.Image {
	first := p.status("app").Images.Count
	var last *status.Image
	t.await(func(context.Context) error {
		i := p.status("app").Images
		if i.Count < first+n {
			return fmt.Errorf("%d more images than %d are wanted: %+v", n, first, i)
		}
		last = i.Last
		return nil
	})
	return last
}

// imageRecords are the names of all images of the node.
func imageRecords(t *T) []string {
	out, err := t.c.Run(t.ctx, "ctr", "images", "ls", "-q")
	t.must(err)
	return strings.Fields(out)
}

// pinImage pins the image of the newest checkpoint of a container, and returns its
// tag. By the time that it is asked for it may have made room for others.
func (p *pod) pinImage(container string) (tag string) {
	p.t.await(func(ctx context.Context) error {
		i := p.status(container).Images
		if i == nil || i.Last == nil {
			return fmt.Errorf("container %s has no image: %+v", container, i)
		}
		tag = strconv.FormatUint(i.Last.Sequence, 10)
		_, err := p.t.c.Run(ctx, filepath.Join(p.t.c.Root, "bin/crsc"), "pin", p.containerID(container), tag)
		return err
	})
	return tag
}
