//go:build linux

package main

import "context"

func (b *bench) links(ctx context.Context) error      { return nil }
func (b *bench) operations(ctx context.Context) error { return nil }
