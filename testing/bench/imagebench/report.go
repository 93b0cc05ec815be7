package imagebench

import (
	"fmt"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

func (b *Benchmark) report(out *bench.Results, plain, with *outcome, images []image) {
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
	for _, im := range with.images {
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
	b.reportCost(out, plain, with, note)
	t := out.Table("Images", "image", "place in the chain", "MiB added", "MiB of pages changed", "added/changed", "checkpointctl opens", "also the memory", "fetch, ms")
	for i, im := range images {
		ratio := "-"
		if i > 0 && im.info.Chain > 0 {
			ratio = fmt.Sprintf("%.3f", float64(im.bytes)/float64(im.changed))
		}
		t.Row(im.info.Sequence, im.info.Chain, mib(im.bytes), mib(im.changed), ratio, im.opens, im.memory, bench.Millis(im.fetch))
	}
}

// reportCost compares what a container with images costs with one without.
func (b *Benchmark) reportCost(out *bench.Results, plain, with *outcome, note string) {
	var publishing, without, added bench.Sample
	var busy time.Duration
	for i, im := range with.images {
		length := duration(im.TotalMS)
		busy += length
		length = min(length, longestSpan)
		publishing, without = append(publishing, with.stall(i, length)), append(without, plain.stall(i, length))
		added = append(added, publishing[i]-without[i])
	}
	idle := plain.cpu.Seconds() / plain.time.Seconds()
	extra := with.cpu.Seconds() - idle*with.time.Seconds()
	out.Add("publish_cores", extra/with.time.Seconds(), "cores", fmt.Sprintf("processor time of shim, children and daemon, less that without images (%.3f), in %s between checkpoints", idle, interval))
	out.Add("publish_cores_while", extra/busy.Seconds(), "cores", "the same in the time of the publications")
	out.AddQuantiles("stall_publishing_ms", publishing, "ms", "longest wait of a client back to back during a publication; "+note, 0.99)
	out.AddQuantiles("stall_without_ms", without, "ms", "the same, equally long after a checkpoint without images", 0.99)
	out.AddQuantiles("stall_added_ms", added, "ms", "differences in pairs", 0.9)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
