//go:build !linux

package qemu

import (
	"errors"
	"os"
)

var errNoLinks = errors.New("taps and macvtaps are Linux devices")

func findLink(string, string) (Link, error) { return Link{}, errNoLinks }

func openLink(Link) (*os.File, error) { return nil, errNoLinks }

func openLooseTap() (*os.File, error) { return nil, errNoLinks }
