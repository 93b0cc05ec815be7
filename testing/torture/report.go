package torture

// Report is out/torture.json.
type Report struct {
	Passed int       `json:"passed"`
	Failed int       `json:"failed"`
	Tools  []*Result `json:"tools"`
}

// Result is what became of one tool.
type Result struct {
	Name string `json:"name"`
	// Direct and Proxied are what the tool found, Killed what it found while the
	// server was killed; empty where that is not done.
	Direct  string `json:"direct"`
	Proxied string `json:"proxied"`
	Killed  string `json:"killed,omitempty"`
	// Identical: all of them are the same.
	Identical bool   `json:"identical"`
	Kills     int    `json:"kills"`
	Failure   string `json:"failure,omitempty"`
}
