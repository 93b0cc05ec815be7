package criu

// For tests with a real CRIU.
var (
	Flatten  = flatten
	Subtract = subtract
)
