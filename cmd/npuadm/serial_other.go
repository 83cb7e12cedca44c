//go:build !linux

package main

import "errors"

func openSerial(string) (stream, error) {
	return nil, errors.New("npuadm knows the serial ports of Linux only: in an illumos guest use scadm")
}
