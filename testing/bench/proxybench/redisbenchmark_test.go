package proxybench

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sample is what redis-benchmark 7.0.15 prints.
const sample = "SET: rps=0.0 (overall: -nan) avg_msec=-nan (overall: -nan)\r====== SET ======\n" + `  20000 requests completed in 0.43 seconds
  50 parallel clients

Latency by percentile distribution:
0.000% <= 0.031 milliseconds (cumulative count 1)
50.000% <= 0.591 milliseconds (cumulative count 10233)
98.438% <= 3.287 milliseconds (cumulative count 19690)
99.219% <= 4.183 milliseconds (cumulative count 19844)
99.805% <= 6.119 milliseconds (cumulative count 19961)
99.902% <= 9.959 milliseconds (cumulative count 19981)
100.000% <= 10.783 milliseconds (cumulative count 20000)

Cumulative distribution of latencies:
0.005% <= 0.103 milliseconds (cumulative count 1)
100.000% <= 11.103 milliseconds (cumulative count 20000)

Summary:
  throughput summary: 46948.36 requests per second
`

func TestParse(t *testing.T) {
	r, err := parse([]byte(sample))
	require.NoError(t, err)
	assert.Equal(t, run{rps: 46948.36, p50: 0.591, p99: 4.183, p999: 9.959}, r)
	for _, bad := range []string{"", "Could not connect", "  throughput summary: 5.00 requests per second\n"} {
		_, err := parse([]byte(bad))
		assert.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func TestMetricNames(t *testing.T) {
	assert.Equal(t, "redis_set_50", cell{"set", 50, 1}.metric())
	assert.Equal(t, "redis_incr_500_p16", cell{"incr", 500, 16}.metric())
	names := map[string]bool{}
	for _, c := range grid() {
		names[c.metric()] = true
	}
	assert.Len(t, names, 18)
}

const wrkSaid = `Running 1s test @ http://198.18.2.2:81/small
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.45ms    1.93ms  27.54ms   86.67%
    Req/Sec    20.85k     1.45k   23.01k    70.00%
  Latency Distribution
     50%    1.93ms
     75%  980.00us
     90%    4.55ms
     99%   10.02ms
  20753 requests in 1.00s, 4.75MB read
Requests/sec:  20687.12
Transfer/sec:      4.74MB
`

func TestParseWrk(t *testing.T) {
	r, err := parseWrk(wrkSaid)
	require.NoError(t, err)
	require.Equal(t, run{rps: 20687.12, p50: 1.93, p99: 10.02, requests: 20753}, r)
	for _, bad := range []string{
		"", "Requests/sec:  12\n",
		wrkSaid + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
		wrkSaid + "  Non-2xx or 3xx responses: 12\n",
	} {
		_, err := parseWrk(bad)
		require.ErrorIs(t, err, ErrOutput)
	}
}
