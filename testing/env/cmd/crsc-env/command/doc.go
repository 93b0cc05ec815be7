// Package command is the command line of the test environment.
package command
