package p4

import (
	"math/big"
	"math/bits"
)

// Numbers wider than 64 bits are slices of 64-bit limbs, lowest first. The results are written to dst, which has as many
// limbs as the operands unless it is said otherwise, and none of these functions allocates.

// ones is a mask of the lowest n bits.
func ones(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<uint(n) - 1
}

// cut clears the bits above width.
func cut(v []uint64, width int) {
	for i := range v {
		if rest := width - 64*i; rest < 64 {
			v[i] &= ones(max(rest, 0))
		}
	}
}

func wideAdd(dst, a, b []uint64) {
	var carry uint64
	for i := range dst {
		dst[i], carry = bits.Add64(a[i], b[i], carry)
	}
}

func wideSub(dst, a, b []uint64) {
	var borrow uint64
	for i := range dst {
		dst[i], borrow = bits.Sub64(a[i], b[i], borrow)
	}
}

// wideMul multiplies; dst must be neither a nor b.
func wideMul(dst, a, b []uint64) {
	clear(dst)
	for i := range a {
		var carry uint64
		for k := 0; i+k < len(dst); k++ {
			hi, lo := bits.Mul64(a[i], b[k])
			var c uint64
			lo, c = bits.Add64(lo, carry, 0)
			hi += c
			dst[i+k], c = bits.Add64(dst[i+k], lo, 0)
			carry = hi + c
		}
	}
}

func wideLess(a, b []uint64) bool {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func wideEqual(a, b []uint64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func wideZero(a []uint64) bool {
	for _, v := range a {
		if v != 0 {
			return false
		}
	}
	return true
}

func wideBit(a []uint64, i int) uint64 { return a[i/64] >> uint(i%64) & 1 }

// wideShl shifts to the left; dst may be a.
func wideShl(dst, a []uint64, n uint64) {
	if n >= uint64(64*len(dst)) {
		clear(dst)
		return
	}
	words, rest := int(n/64), n%64
	for i := len(dst) - 1; i >= 0; i-- {
		var v uint64
		if i-words >= 0 {
			v = a[i-words] << rest
			if rest > 0 && i-words > 0 {
				v |= a[i-words-1] >> (64 - rest)
			}
		}
		dst[i] = v
	}
}

// wideShr shifts to the right and fills with zeros; dst may be a.
func wideShr(dst, a []uint64, n uint64) {
	if n >= uint64(64*len(dst)) {
		clear(dst)
		return
	}
	words, rest := int(n/64), n%64
	for i := range dst {
		var v uint64
		if i+words < len(a) {
			v = a[i+words] >> rest
			if rest > 0 && i+words+1 < len(a) {
				v |= a[i+words+1] << (64 - rest)
			}
		}
		dst[i] = v
	}
}

// wideDivMod divides; quo, rem, a and b are all different. The divisor is not zero.
func wideDivMod(quo, rem, a, b []uint64) {
	clear(quo)
	clear(rem)
	for i := 64*len(a) - 1; i >= 0; i-- {
		wideShl(rem, rem, 1)
		rem[0] |= wideBit(a, i)
		if !wideLess(rem, b) {
			wideSub(rem, rem, b)
			quo[i/64] |= 1 << uint(i%64)
		}
	}
}

// getBits reads up to 64 bits from bit lo on.
func getBits(v []uint64, lo, width int) uint64 {
	i, rest := lo/64, uint(lo%64)
	x := v[i] >> rest
	if rest > 0 && i+1 < len(v) {
		x |= v[i+1] << (64 - rest)
	}
	return x & ones(width)
}

// setBits writes up to 64 bits from bit lo on.
func setBits(v []uint64, lo, width int, x uint64) {
	i, rest := lo/64, uint(lo%64)
	mask := ones(width)
	x &= mask
	v[i] = v[i]&^(mask<<rest) | x<<rest
	if int(rest)+width > 64 {
		v[i+1] = v[i+1]&^(mask>>(64-rest)) | x>>(64-rest)
	}
}

// moveBits copies width bits of src from bit from on to dst from bit to on.
func moveBits(dst []uint64, to int, src []uint64, from, width int) {
	for width > 0 {
		n := min(width, 64)
		setBits(dst, to, n, getBits(src, from, n))
		to, from, width = to+n, from+n, width-n
	}
}

// toLimbs gives the two's complement of a number in the limbs of its width.
func toLimbs(v *big.Int, width int) []uint64 {
	out := make([]uint64, limbs(width))
	w := new(big.Int).And(v, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(width)), big.NewInt(1)))
	mask := new(big.Int).SetUint64(^uint64(0))
	for i := range out {
		out[i] = new(big.Int).And(w, mask).Uint64()
		w.Rsh(w, 64)
	}
	return out
}

// signed reads the lowest width bits as a two's complement.
func signed(v uint64, width int) int64 {
	shift := uint(64 - width)
	return int64(v<<shift) >> shift
}
