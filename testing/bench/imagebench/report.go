package imagebench

import (
	"fmt"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

func (b *Benchmark) report(out *bench.Results, with, without *side, images []image) {
	var bytes, changed, opens, memory float64
	var fetches, fullTimes, timesMS bench.Sample
	increments := 0
	for i, im := range images {
		if im.opens {
			opens++
		}
		if im.memory {
			memory++
		}
		fetches = append(fetches, bench.Millis(im.fetch))
		if im.info.Chain > 0 && i > 0 {
			increments++
			bytes += float64(im.bytes)
			changed += float64(im.changed)
		}
	}
	for _, m := range with.made {
		im := m.Image
		if im.Chain == 0 {
			fullTimes = append(fullTimes, im.TotalMS)
		} else {
			timesMS = append(timesMS, im.TotalMS)
		}
	}
	n := float64(len(images))
	note := fmt.Sprintf("%d images, %d of them incremental; Redis with %d MB of random data, %d MB overwritten in each round", len(images), increments, b.heapMB, b.changed)
	out.Add("increment_bytes_per_changed_byte", bytes/changed, "ratio", "compressed bytes that incremental images added to the store / bytes of pages that the image before lacks; "+note)
	out.Add("increment_changed_mb_mean", changed/float64(increments)/(1<<20), "MiB", note)
	out.Add("checkpointctl_opens", opens/n, "part", "show and inspect with process tree, sockets and files; "+note)
	out.Add("checkpointctl_reads_memory", memory/n, "part", "the full images only, by design; "+note)
	if len(timesMS) > 0 {
		out.AddQuantiles("publish_increment_ms", timesMS, "ms", note, 0.99)
	}
	if len(fullTimes) > 0 {
		out.AddQuantiles("publish_full_ms", fullTimes, "ms", note, 1)
	}
	out.AddQuantiles("fetch_ms", fetches, "ms", "image to checkpoint directory, synced; "+note, 0.99)
	reportProcessor(out, with, without)
	reportStalls(out, with, without)
	t := out.Table("Images", "image", "place in the chain", "MiB added", "MiB of pages changed", "added/changed", "checkpointctl opens", "also the memory", "fetch, ms")
	for i, im := range images {
		ratio := "-"
		if i > 0 && im.info.Chain > 0 {
			ratio = fmt.Sprintf("%.3f", float64(im.bytes)/float64(im.changed))
		}
		t.Row(im.info.Sequence, im.info.Chain, mib(im.bytes), mib(im.changed), ratio, im.opens, im.memory, bench.Millis(im.fetch))
	}
}

// reportProcessor compares the processor time of both.
func reportProcessor(out *bench.Results, with, without *side) {
	var busy time.Duration
	for _, m := range with.made {
		busy += duration(m.Image.TotalMS)
	}
	// Without images the daemon has nothing to do.
	extra := with.shim - without.shim + with.daemon
	out.Add("publish_cores_while", extra.Seconds()/busy.Seconds(), "cores", "processor time of shim, children and daemon, less that of a shim without images, in the time of the publications (target at most 1)")
	out.Add("publish_cpu_ms", bench.Millis(extra)/float64(len(with.made)), "ms", "the same for each image")
}

// reportStalls compares what clients notice, in the time of each publication and
// equally long without one.
func reportStalls(out *bench.Results, with, without *side) {
	var p, longest pairs
	var stalls, plain bench.Sample
	for i, m := range with.made {
		length := min(duration(m.Image.TotalMS), span)
		look := func(m made) bench.Sample { return m.prober.Waits(m.begin(), m.begin().Add(length)) }
		a, b := look(m), look(without.made[i])
		if len(a) == 0 || len(b) == 0 {
			continue // shorter than one request
		}
		p.with, p.without = append(p.with, a), append(p.without, b)
		stalls, plain = append(stalls, a.Max()), append(plain, b.Max())
		longest.with, longest.without = append(longest.with, bench.Sample{a.Max()}), append(longest.without, bench.Sample{b.Max()})
	}
	n := len(p.with)
	note := fmt.Sprintf("%d rounds in turn, in random order", n)
	out.AddQuantiles("stall_publishing_ms", stalls, "ms", "longest wait of a client back to back during a publication; "+note, 0.99)
	out.AddQuantiles("stall_without_ms", plain, "ms", "the same, equally long after a checkpoint without an image", 0.99)
	t := out.Table("What a client waits longer while an image is made, ms", "", "with", "without", "difference", "95 % from", "to")
	add := func(name, title string, p *pairs, q float64) {
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		added := p.added(q)
		low, high := interval95(n, added)
		out.Add(name, added(all), "ms", title+", difference; "+note)
		out.Add(name+"_low", low, "ms", "95 % confidence; above 0 the difference is measurable")
		out.Add(name+"_high", high, "ms", "95 % confidence")
		t.Row(title, joined(p.with).Quantile(q), joined(p.without).Quantile(q), added(all), low, high)
	}
	if n == 0 {
		return
	}
	add("stall_added_ms_p50", "longest wait, median", &longest, 0.5)
	add("wait_added_ms_p50", "all waits, median", &p, 0.5)
	add("wait_added_ms_p99", "all waits, p99", &p, 0.99)
}

func joined(list []bench.Sample) (s bench.Sample) {
	for _, l := range list {
		s = append(s, l...)
	}
	return s
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
