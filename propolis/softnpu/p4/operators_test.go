package p4

import (
	"bytes"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pow is 2 to the power of n.
func pow(n int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(n)) }

// asSigned reads a number of a width as a two's complement.
func asSigned(v *big.Int, width int) *big.Int {
	if v.Bit(width-1) == 1 {
		return new(big.Int).Sub(v, pow(width))
	}
	return new(big.Int).Set(v)
}

func modulo(v *big.Int, width int) *big.Int { return new(big.Int).Mod(v, pow(width)) }

func truth(b bool) *big.Int {
	if b {
		return big.NewInt(1)
	}
	return new(big.Int)
}

// pack puts numbers one behind the other, and fills up the last byte.
func pack(vals []*big.Int, widths []int) []byte {
	all, n := new(big.Int), 0
	for i, v := range vals {
		all.Lsh(all, uint(widths[i])).Or(all, v)
		n += widths[i]
	}
	all.Lsh(all, uint((8-n%8)%8))
	return all.FillBytes(make([]byte, (n+7)/8))
}

// limit is the result of a saturating operator.
func limit(v *big.Int, width int, isSigned bool) *big.Int {
	lo, hi := new(big.Int), new(big.Int).Sub(pow(width), big.NewInt(1))
	if isSigned {
		lo, hi = new(big.Int).Neg(pow(width-1)), new(big.Int).Sub(pow(width-1), big.NewInt(1))
	}
	switch {
	case v.Cmp(lo) < 0:
		v = lo
	case v.Cmp(hi) > 0:
		v = hi
	}
	return modulo(v, width)
}

// operatorModels say what an operator gives: its result in the bits of its width.
var operatorModels = map[string]func(x, y *big.Int, width int, isSigned bool) *big.Int{
	"+":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).Add(x, y), w) },
	"-":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).Sub(x, y), w) },
	"*":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).Mul(x, y), w) },
	"&":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).And(x, y), w) },
	"|":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).Or(x, y), w) },
	"^":   func(x, y *big.Int, w int, _ bool) *big.Int { return modulo(new(big.Int).Xor(x, y), w) },
	"|+|": func(x, y *big.Int, w int, s bool) *big.Int { return limit(new(big.Int).Add(x, y), w, s) },
	"|-|": func(x, y *big.Int, w int, s bool) *big.Int { return limit(new(big.Int).Sub(x, y), w, s) },
	"/":   func(x, y *big.Int, _ int, _ bool) *big.Int { return new(big.Int).Quo(x, y) },
	"%":   func(x, y *big.Int, _ int, _ bool) *big.Int { return new(big.Int).Rem(x, y) },
	"<":   func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) < 0) },
	"<=":  func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) <= 0) },
	">":   func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) > 0) },
	">=":  func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) >= 0) },
	"==":  func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) == 0) },
	"!=":  func(x, y *big.Int, _ int, _ bool) *big.Int { return truth(x.Cmp(y) != 0) },
	"<<": func(x, y *big.Int, w int, _ bool) *big.Int {
		if y.Cmp(big.NewInt(int64(w))) >= 0 {
			return new(big.Int)
		}
		return modulo(new(big.Int).Lsh(x, uint(y.Int64())), w)
	},
	">>": func(x, y *big.Int, w int, _ bool) *big.Int {
		n := uint(w)
		if y.Cmp(big.NewInt(int64(w))) < 0 {
			n = uint(y.Int64())
		}
		return modulo(new(big.Int).Rsh(x, n), w)
	},
}

func drawNumber(t *rapid.T, width int, name string) *big.Int {
	b := make([]byte, (width+7)/8)
	switch rapid.IntRange(0, 4).Draw(t, name+" kind") {
	case 0:
	case 1:
		return new(big.Int).Sub(pow(width), big.NewInt(1))
	case 2:
		return modulo(big.NewInt(rapid.Int64Range(0, 300).Draw(t, name)), width)
	default:
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, name), 0))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	return modulo(new(big.Int).SetBytes(b), width)
}

// Every operator agrees with big integers at any width, signed or not, with its operands as fields and as constants.
func TestOperatorsAgreeWithBigIntegers(t *testing.T) {
	widths := rapid.OneOf(rapid.IntRange(1, 70), rapid.SampledFrom([]int{8, 16, 32, 48, 63, 64, 65, 127, 128, 129, 256, 1000, 2048}))
	for op, model := range operatorModels {
		t.Run(op, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := widths.Draw(t, "width")
				isSigned := rapid.Bool().Draw(t, "signed")
				div := op == "/" || op == "%"
				shift := op == "<<" || op == ">>"
				if div {
					isSigned = false
				}
				typ := fmt.Sprintf("bit<%d>", w)
				if isSigned {
					typ = fmt.Sprintf("int<%d>", w)
				}
				yt := typ
				if shift {
					yt = fmt.Sprintf("bit<%d>", w)
				}
				rw, rt := w, typ
				assign := "hdr.h.z = hdr.h.x " + op + " "
				compare := slices.Contains([]string{"==", "!=", "<", ">", "<=", ">="}, op)
				if compare {
					rw, rt = 1, "bit<1>"
				}
				x, y := drawNumber(t, w, "x"), drawNumber(t, w, "y")
				if div && y.Sign() == 0 {
					y.SetInt64(1)
				}
				right := "hdr.h.y"
				if rapid.Bool().Draw(t, "constant") {
					prefix := "w"
					lit := y
					if isSigned && !shift {
						prefix = "s"
					}
					right = fmt.Sprintf("%d%s%d", w, prefix, lit)
				}
				assign += right + ";"
				if compare {
					assign = "hdr.h.z = (bit<1>) (hdr.h.x " + op + " " + right + ");"
				}
				pl := newPipeline(t, parts{fields: typ + " x; " + yt + " y; " + rt + " z;", ingress: assign}.text(), 2)

				ax, ay := x, y
				if isSigned {
					ax = asSigned(x, w)
					if !shift {
						ay = asSigned(y, w)
					}
				}
				want := pack([]*big.Int{x, y, model(ax, ay, w, isSigned)}, []int{w, w, rw})
				in := pack([]*big.Int{x, y, new(big.Int)}, []int{w, w, rw})
				var got []byte
				pl.Process(0, in, func(_ uint16, b []byte) { got = bytes.Clone(b) })
				// The payload begins with the last byte if the header does not fill it.
				got = got[:min(len(got), len(want))]
				if !bytes.Equal(got, want) {
					t.Fatalf("%s of %s: %x %s %x (constant: %s)\ngot  %x\nwant %x", op, typ, x, op, y, right, got, want)
				}
			})
		})
	}
}
