package softnpu

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// Values are written as people know them by their width: 32 bits as an IPv4
// address, 48 as a MAC address, 128 as an IPv6 address, and all others as a
// number. In whatever form they are given, numbers are taken for any width, in
// decimal or, after 0x, in hexadecimal.

// FormatValue returns a big-endian value as people write it.
func FormatValue(bits int, v []byte) string {
	switch {
	case bits == 32 && len(v) == 4, bits == 128 && len(v) == 16:
		a, _ := netip.AddrFromSlice(v) // of that length it is one
		return a.String()
	case bits == 48 && len(v) == 6:
		return net.HardwareAddr(v).String()
	}
	return new(big.Int).SetBytes(v).String()
}

// ParseValue is the inverse of FormatValue.
func ParseValue(bits int, s string) ([]byte, error) {
	size := byteLen(bits)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		if b := a.AsSlice(); 8*len(b) == bits {
			return b, nil
		}
		return nil, fmt.Errorf("%s is an address of %d bits: want %d", s, a.BitLen(), bits)
	}
	if mac, err := net.ParseMAC(s); err == nil {
		if 8*len(mac) == bits {
			return mac, nil
		}
		return nil, fmt.Errorf("%s is an address of %d bits: want %d", s, 8*len(mac), bits)
	}
	n, ok := new(big.Int).SetString(s, 0)
	switch {
	case !ok || n.Sign() < 0:
		return nil, fmt.Errorf("%q is neither a number nor an address", s)
	case n.BitLen() > bits:
		return nil, fmt.Errorf("%s has more than %d bits", s, bits)
	}
	return n.FillBytes(make([]byte, size)), nil
}

// anyValue stands for all values of a key that is not exact.
const anyValue = "_"

// FormatMatch returns what an entry wants of a key: VALUE, VALUE/PREFIX,
// VALUE&&&MASK or LOW..HIGH, or "_" for any value.
func FormatMatch(k Key, m match.Match) string {
	value := FormatValue(k.Bits, m.Value)
	switch k.Kind {
	case match.LPM.String():
		return value + "/" + strconv.Itoa(m.Prefix)
	case match.Ternary.String():
		switch {
		case bytes.Equal(m.Mask, make([]byte, len(m.Mask))):
			return anyValue
		case bytes.Equal(m.Mask, allOnes(k.Bits)):
			return value
		}
		return value + "&&&0x" + new(big.Int).SetBytes(m.Mask).Text(16)
	case match.Range.String():
		if bytes.Equal(m.Value, m.High) {
			return value
		}
		return value + ".." + FormatValue(k.Bits, m.High)
	}
	return value
}

// ParseMatch is the inverse of FormatMatch. A lone value is a range of one, a
// ternary key with all bits, or a prefix of full length.
func ParseMatch(k Key, s string) (match.Match, error) {
	m, err := parseMatch(k, s)
	if err != nil {
		return m, fmt.Errorf("key %s (%s, %d bits): %w", k.Name, k.Kind, k.Bits, err)
	}
	return m, nil
}

func parseMatch(k Key, s string) (m match.Match, err error) {
	size := byteLen(k.Bits)
	if s == anyValue {
		m = match.Match{Value: make([]byte, size), Mask: make([]byte, size), High: allOnes(k.Bits)}
		if k.Kind == match.Exact.String() {
			err = errors.New("it needs a value")
		}
		return m, err
	}
	switch k.Kind {
	case match.LPM.String():
		value, length, found := strings.Cut(s, "/")
		if m.Prefix = k.Bits; found {
			if m.Prefix, err = strconv.Atoi(length); err != nil || m.Prefix < 0 || m.Prefix > k.Bits {
				return m, fmt.Errorf("%q is not the length of a prefix: want 0 to %d", length, k.Bits)
			}
		}
		s = value
	case match.Ternary.String():
		value, mask, found := strings.Cut(s, "&&&")
		if m.Mask = allOnes(k.Bits); found {
			if m.Mask, err = ParseValue(k.Bits, mask); err != nil {
				return m, err
			}
		}
		s = value
	case match.Range.String():
		low, high, found := strings.Cut(s, "..")
		if !found {
			high = low
		}
		if m.High, err = ParseValue(k.Bits, high); err != nil {
			return m, err
		}
		s = low
	}
	m.Value, err = ParseValue(k.Bits, s)
	return m, err
}

// FormatArgs returns the values of an action's parameters with their names, as
// in "port 2, nexthop 10.0.0.1".
func FormatArgs(params []Param, args [][]byte) string {
	var parts []string
	for i, p := range params {
		if i < len(args) {
			parts = append(parts, p.Name+" "+FormatValue(p.Bits, args[i]))
		}
	}
	return strings.Join(parts, ", ")
}
