package journalbench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/testing/bench"
)

// input is what a turn of the loop journals.
type input struct {
	name string
	data []byte
}

// inputs are what clients send, in the form that common tools and services have:
// turns of about turnBytes.
func inputs() []input {
	rng := rand.New(rand.NewPCG(1, 2))
	return []input{
		{"Redis, SET of 3 bytes (redis-benchmark)", turn(func(b *bytes.Buffer) {
			fmt.Fprintf(b, "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$3\r\nxxx\r\n", rng.IntN(100000))
		})},
		{"Redis, SET of a JSON session of 1 KiB", turn(func(b *bytes.Buffer) {
			v := session(rng, 1<<10)
			fmt.Fprintf(b, "*3\r\n$3\r\nSET\r\n$12\r\nsession:%04d\r\n$%d\r\n%s\r\n", rng.IntN(10000), len(v), v)
		})},
		{"HTTP, GET with a browser's headers", turn(func(b *bytes.Buffer) {
			fmt.Fprintf(b, "GET /api/items/%d?page=%d HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"+
				"Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: sid=%016x%016x\r\n\r\n",
				rng.IntN(100000), rng.IntN(50), rng.Uint64(), rng.Uint64())
		})},
		{"HTTP, POST of 16 KiB of JSON", turn(func(b *bytes.Buffer) {
			v := session(rng, 16<<10)
			fmt.Fprintf(b, "POST /api/orders HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(v), v)
		})},
		{"PostgreSQL, pgbench's transaction", turn(func(b *bytes.Buffer) {
			aid, delta := rng.IntN(100000), rng.IntN(10000)-5000
			for _, q := range []string{
				"BEGIN;", fmt.Sprintf("UPDATE pgbench_accounts SET abalance = abalance + %d WHERE aid = %d;", delta, aid),
				fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d;", aid),
				fmt.Sprintf("UPDATE pgbench_tellers SET tbalance = tbalance + %d WHERE tid = %d;", delta, rng.IntN(10)),
				fmt.Sprintf("INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (%d, 1, %d, %d, CURRENT_TIMESTAMP);", rng.IntN(10), aid, delta), "END;",
			} {
				b.WriteByte('Q')
				_ = binary.Write(b, binary.BigEndian, uint32(len(q)+5))
				b.WriteString(q + "\x00")
			}
		})},
		{"an upload that is compressed already", turn(func(b *bytes.Buffer) {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], rng.Uint64())
			b.Write(word[:])
		})},
	}
}

func turn(message func(*bytes.Buffer)) []byte {
	var b bytes.Buffer
	for b.Len() < turnBytes {
		message(&b)
	}
	return b.Bytes()[:turnBytes]
}

// session is a JSON object of about n bytes.
func session(rng *rand.Rand, n int) []byte {
	words := []string{"alpha", "basket", "customer", "delivery", "error", "first", "given", "house", "item", "joined", "known", "letter"}
	b := bytes.NewBufferString(`{"items":[`)
	for b.Len() < n {
		fmt.Fprintf(b, `{"id":%d,"name":"%s %s","price":%.2f,"token":"%08x"},`, rng.IntN(1e6), words[rng.IntN(len(words))], words[rng.IntN(len(words))], rng.Float64()*100, rng.Uint32())
	}
	return append(b.Bytes()[:b.Len()-1], "]}"...)
}

// compress compares what compressing a turn's input takes with what journaling it
// takes.
func (b *Benchmark) compress(ctx context.Context, dir string, out *bench.Results) (err error) {
	j, err := warm(journal.Options{Dir: filepath.Join(dir, "compress")}, turnBytes, turnBytes, keepBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Destroy()) }()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	var into []byte
	ways := []struct {
		name string
		do   func(data []byte) (int, error)
	}{
		{"journal", func(data []byte) (int, error) { return len(data), put(j, data, len(data), keepBytes) }},
		{"s2", func(data []byte) (int, error) { into = s2.Encode(into[:cap(into)], data); return len(into), nil }},
		{"zstd", func(data []byte) (int, error) { into = z.EncodeAll(data, into[:0]); return len(into), nil }},
	}
	t := out.Table("Compressing a turn's input of 64 KiB, MB in a second of processor time, and what remains", "input", "journal", "s2", "remains", "zstd, fastest", "remains")
	worst := map[string]bench.Sample{}
	for _, in := range inputs() {
		rates, left := map[string]bench.Sample{}, map[string]float64{}
		for range b.rounds {
			for _, w := range ways {
				rate, n, err := b.repeat(ctx, in.data, w.do)
				if err != nil {
					return err
				}
				rates[w.name], left[w.name] = append(rates[w.name], rate), float64(n)/float64(len(in.data))
			}
		}
		t.Row(in.name, rates["journal"].Median(), rates["s2"].Median(), left["s2"], rates["zstd"].Median(), left["zstd"])
		for _, way := range []string{"s2", "zstd"} {
			worst[way] = append(worst[way], rates[way].Over(rates["journal"]).Median())
		}
	}
	for _, way := range []string{"s2", "zstd"} {
		out.Add("compress_"+way+"_vs_append", worst[way].Median(), "ratio", "bytes compressed against bytes journaled to the page cache in the same processor time, median of the inputs")
	}
	return nil
}

// repeat returns how many MB of data do takes in a second of processor time, and
// its last result.
func (b *Benchmark) repeat(ctx context.Context, data []byte, do func([]byte) (int, error)) (rate float64, n int, err error) {
	turns := 0
	start, before := time.Now(), processorTime()
	for ; time.Since(start) < b.length/4 && ctx.Err() == nil; turns++ {
		if n, err = do(data); err != nil {
			return 0, 0, err
		}
	}
	return float64(turns) * float64(len(data)) / 1e6 / (processorTime() - before).Seconds(), n, ctx.Err()
}
