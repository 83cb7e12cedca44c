package p4

// datum is a number in the data that is set from outside: an argument of an action or a cell of a register. A struct is as
// many of them as it has fields, those of structs in it in their place.
type datum struct {
	name string
	off  int
	bits int
}

// dataOf lists the numbers of a type, from slot off on, and the slots that say of a field that it was assigned. It is not
// ok for a type that has something else in it than numbers.
func dataOf(t *typ, name string, off int) (data []datum, flags []int, ok bool) {
	if t.scalar() {
		return []datum{{name, off, max(t.width, 1)}}, nil, t.kind != kindBad
	}
	if t.kind != kindStruct {
		return nil, nil, false
	}
	for _, f := range t.fields {
		sub := f.name
		if name != "" {
			sub = name + "." + f.name
		}
		d, fl, ok := dataOf(f.typ, sub, off+f.off)
		if !ok {
			return nil, nil, false
		}
		data, flags = append(data, d...), append(flags, fl...)
		if f.tracked {
			flags = append(flags, off+f.off+f.typ.size)
		}
	}
	return data, flags, len(data) > 0
}

// constData puts a constant into slots; false says that it is none.
func constData(slots []uint64, v value, t *typ) bool {
	switch {
	case v.c != nil:
		copy(slots, toLimbs(v.c, max(t.width, 1)))
		return true
	case t.kind != kindStruct || len(v.list) != len(t.fields):
		return false
	}
	for i := range t.fields {
		f := &t.fields[i]
		if !constData(slots[f.off:], v.list[i], f.typ) {
			return false
		}
		if f.tracked {
			slots[f.off+f.typ.size] = 1
		}
	}
	return true
}
