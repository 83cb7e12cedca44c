package softnpu

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// The management channel has keys and parameters as bytes:
//
//	exact      the value, little-endian
//	range      lower and upper end, both included, little-endian
//	ternary    a byte, 0: any value, 1: the value that follows
//	lpm        the value in network order, a byte with the prefix's length
//	parameter  the value, little-endian
//
// one after the other, each value in as many whole bytes as it needs. What
// follows the last is left alone: clients pad keys of 16 bits to 64, and add a
// byte that means nothing when they remove a route.
//
// Two things are our own, for what SoftNPU cannot say: the byte of a ternary
// key may be 2, and then the value and a mask follow; and the length of a
// prefix takes two bytes, in network order, where the key has more than 255
// bits.

// Care byte of a ternary key.
const (
	careNot  = 0
	careAll  = 1
	careMask = 2
)

// errShort is bytes that end early.
var errShort = errors.New("the bytes end early")

// DecodeKeys returns what an entry wants of a table's keys, from the bytes of the
// management channel.
func DecodeKeys(keys []Key, data []byte) ([]match.Match, error) {
	matches := make([]match.Match, len(keys))
	for i, k := range keys {
		var err error
		if data, err = decodeKey(&matches[i], k, data); err != nil {
			return nil, fmt.Errorf("key %s (%s, %d bits): %w", k.Name, k.Kind, k.Bits, err)
		}
	}
	return matches, nil
}

// decodeKey takes one key from the bytes and returns the rest.
func decodeKey(m *match.Match, k Key, data []byte) ([]byte, error) {
	size := byteLen(k.Bits)
	var err error
	switch k.Kind {
	case match.Exact.String():
		m.Value, data, err = little(data, size)
	case match.Range.String():
		if m.Value, data, err = little(data, size); err == nil {
			m.High, data, err = little(data, size)
		}
	case match.Ternary.String():
		if len(data) == 0 {
			return nil, errShort
		}
		care := data[0]
		if care > careMask {
			return nil, fmt.Errorf("the care byte is %d: want 0, 1 or 2", care)
		}
		if m.Value, data, err = little(data[1:], size); err != nil {
			return nil, err
		}
		switch care {
		case careNot:
			m.Mask = make([]byte, size)
		case careAll:
			m.Mask = allOnes(k.Bits)
		case careMask:
			m.Mask, data, err = little(data, size)
		}
	case match.LPM.String():
		length := prefixSize(k.Bits)
		if len(data) < size+length {
			return nil, errShort
		}
		m.Value = bytes.Clone(data[:size])
		for _, b := range data[size : size+length] {
			m.Prefix = m.Prefix<<8 | int(b)
		}
		data = data[size+length:]
	default:
		err = errors.New("this kind cannot be told in bytes")
	}
	return data, err
}

// EncodeKeys is the inverse of DecodeKeys.
func EncodeKeys(keys []Key, matches []match.Match) ([]byte, error) {
	if len(matches) != len(keys) {
		return nil, fmt.Errorf("%d matches for %d keys", len(matches), len(keys))
	}
	var data []byte
	for i, k := range keys {
		m := matches[i]
		switch k.Kind {
		case match.Exact.String():
			data = appendLittle(data, m.Value)
		case match.Range.String():
			data = appendLittle(appendLittle(data, m.Value), m.High)
		case match.Ternary.String():
			switch {
			case bytes.Equal(m.Mask, make([]byte, len(m.Mask))):
				data = appendLittle(append(data, careNot), m.Value)
			case bytes.Equal(m.Mask, allOnes(k.Bits)):
				data = appendLittle(append(data, careAll), m.Value)
			default:
				data = appendLittle(appendLittle(append(data, careMask), m.Value), m.Mask)
			}
		case match.LPM.String():
			data = append(data, m.Value...)
			if prefixSize(k.Bits) == 2 {
				data = append(data, byte(m.Prefix>>8))
			}
			data = append(data, byte(m.Prefix))
		default:
			return nil, fmt.Errorf("key %s: the kind %q cannot be told in bytes", k.Name, k.Kind)
		}
	}
	return data, nil
}

// DecodeArgs returns the values of an action's parameters, from the bytes of the
// management channel.
func DecodeArgs(params []Param, data []byte) ([][]byte, error) {
	args := make([][]byte, len(params))
	for i, p := range params {
		var err error
		if args[i], data, err = little(data, byteLen(p.Bits)); err != nil {
			return nil, fmt.Errorf("parameter %s (%d bits): %w", p.Name, p.Bits, err)
		}
		if p.Bits%8 != 0 && args[i][0]>>(p.Bits%8) != 0 {
			return nil, fmt.Errorf("parameter %s: %#x has more than %d bits", p.Name, args[i], p.Bits)
		}
	}
	return args, nil
}

// EncodeArgs is the inverse of DecodeArgs.
func EncodeArgs(args [][]byte) []byte {
	var data []byte
	for _, a := range args {
		data = appendLittle(data, a)
	}
	return data
}

// little takes a little-endian value from the bytes, turns it round and
// returns the rest.
func little(data []byte, size int) (value, rest []byte, err error) {
	if len(data) < size {
		return nil, nil, errShort
	}
	value = bytes.Clone(data[:size])
	slices.Reverse(value)
	return value, data[size:], nil
}

func appendLittle(data, value []byte) []byte {
	for i := range value {
		data = append(data, value[len(value)-1-i])
	}
	return data
}

func byteLen(bits int) int { return (bits + 7) / 8 }

// prefixSize returns the bytes that hold the length of a prefix.
func prefixSize(bits int) int {
	if bits > 0xff {
		return 2
	}
	return 1
}

// allOnes returns the largest value of a width.
func allOnes(bits int) []byte {
	v := bytes.Repeat([]byte{0xff}, byteLen(bits))
	if bits%8 != 0 {
		v[0] >>= 8 - bits%8
	}
	return v
}
