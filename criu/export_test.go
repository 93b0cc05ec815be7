package criu

// For tests with a real CRIU.
var (
	Flatten  = flatten
	Subtract = subtract
	EachFile = eachFile
	Slack    = slack
)

const LatencyFile = latencyFile
