//go:build tools

// Package tools names the programs that this module builds, so that go.mod keeps what they need.
package tools

import (
	_ "github.com/johannesboyne/gofakes3/cmd/gofakes3"
)
