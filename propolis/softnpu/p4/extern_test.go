package p4

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"
)

// internetChecksum is RFC 1071 as plainly as it can be written.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

const ipv4Fields = `bit<4> version; bit<4> ihl; bit<8> tos; bit<16> len; bit<16> id; bit<3> flags; bit<13> off; bit<8> ttl; bit<8> proto; bit<16> csum; bit<32> src; bit<32> dst;`

const ipv4List = `{ hdr.h.version, hdr.h.ihl, hdr.h.tos, hdr.h.len, hdr.h.id, hdr.h.flags, hdr.h.off, hdr.h.ttl, hdr.h.proto, hdr.h.src, hdr.h.dst }`

// The checksum of an IPv4 header, worked out by each of the externs that can.
func TestChecksums(t *testing.T) {
	// The example of the header checksum in RFC 1071's spirit: its value is 0xb861.
	const header = "45000073 00004000 4011 0000 c0a80001 c0a800c7"
	const want = "45000073 00004000 4011 b861 c0a80001 c0a800c7"
	b := unhex(t, header)
	if got := internetChecksum(b); got != 0xb861 {
		t.Fatalf("the reference is wrong: %#x", got)
	}
	for name, p := range map[string]parts{
		"Checksum.run":          {locals: "Checksum() c;", ingress: "hdr.h.csum = c.run(" + ipv4List + ");"},
		"InternetChecksum":      {locals: "InternetChecksum() c;", ingress: "c.clear(); c.add(" + ipv4List + "); hdr.h.csum = c.get();"},
		"of the header itself":  {locals: "Checksum() c;", ingress: "hdr.h.csum = c.run(hdr.h);"},
		"in a struct":           {globals: "struct s_t { h_t h; }", locals: "Checksum() c;", ingress: "s_t s; s.h = hdr.h; hdr.h.csum = c.run(s);"},
		"in two parts":          {locals: "InternetChecksum() c;", ingress: "c.clear(); c.add({hdr.h.src, hdr.h.dst}); c.add({hdr.h.version, hdr.h.ihl, hdr.h.tos, hdr.h.len, hdr.h.id, hdr.h.flags, hdr.h.off, hdr.h.ttl, hdr.h.proto}); hdr.h.csum = c.get();"},
		"taken away again":      {locals: "InternetChecksum() c;", ingress: "c.clear(); c.add(hdr.h); c.add(hdr.h.src); c.subtract(hdr.h.src); bit<16> s = c.get_state(); c.clear(); c.set_state(s); hdr.h.csum = c.get();"},
		"csum16 of Hash":        {locals: "Hash<bit<16>>(PSA_HashAlgorithm_t.ONES_COMPLEMENT16) c;", ingress: "hdr.h.csum = c.get_hash(" + ipv4List + ");"},
		"csum16 of a function":  {ingress: "hash(hdr.h.csum, HashAlgorithm.csum16, 16w0, " + ipv4List + ", 32w65536);"},
		"of an invalid header":  {headers: "h_t h; h_t g;", locals: "Checksum() c;", ingress: "hdr.h.csum = c.run({ hdr.h, hdr.g });"},
		"changed incrementally": {locals: "InternetChecksum() c;", ingress: "c.clear(); c.add(hdr.h); c.subtract(hdr.h.ttl ++ hdr.h.proto); c.add(hdr.h.ttl ++ hdr.h.proto); hdr.h.csum = c.get();"},
	} {
		t.Run(name, func(t *testing.T) {
			p.fields = ipv4Fields
			expect(t, p.pipeline(t), 0, header+"aa", "1:"+want+"aa")
		})
	}
}

// A checksum that is not cleared by the program begins anew with each packet.
func TestChecksumBeginsAnew(t *testing.T) {
	pl := parts{fields: "bit<16> a;", locals: "InternetChecksum() c;", ingress: "c.add(hdr.h.a); hdr.h.a = c.get();"}.pipeline(t)
	expect(t, pl, 0, "1234", "1:edcb")
	expect(t, pl, 0, "1234", "1:edcb")
}

func TestChecksumOfAnOddNumberOfBits(t *testing.T) {
	pl := parts{fields: "bit<5> a; bit<7> b; bit<4> c; bit<16> sum;", locals: "Checksum() c;", ingress: "hdr.h.sum = c.run({ hdr.h.a, hdr.h.b });"}.pipeline(t)
	// The twelve bits 0xabc are the upper ones of a word.
	expect(t, pl, 0, "abcd 0000", "1:abcd 543f")
}

func TestHashes(t *testing.T) {
	data := []byte{0x12, 0x34, 0x56, 0x78}
	for _, tc := range []struct {
		name, ingress, locals string
		want                  uint32
	}{
		{"crc32", "hdr.h.b = c.get_hash(hdr.h.a);", "Hash<bit<32>>(PSA_HashAlgorithm_t.CRC32) c;", crc32.ChecksumIEEE(data)},
		{"crc16 of 123456789 is 0xbb3d", "hdr.h.b = (bit<32>) c.get_hash({72w0x313233343536373839});", "Hash<bit<16>>(PSA_HashAlgorithm_t.CRC16) c;", 0xbb3d},
		{"identity", "hdr.h.b = c.get_hash(hdr.h.a);", "Hash<bit<32>>(PSA_HashAlgorithm_t.IDENTITY) c;", 0x12345678},
		{"xor16", "bit<16> x; hash(x, HashAlgorithm.xor16, 16w0, hdr.h.a, 32w65536); hdr.h.b = (bit<32>) x;", "", 0x1234 ^ 0x5678},
		{"with a base and a maximum", "hdr.h.b = c.get_hash(32w100, hdr.h.a, 32w10);", "Hash<bit<32>>(PSA_HashAlgorithm_t.CRC32) c;", 100 + crc32.ChecksumIEEE(data)%10},
		{"with a maximum of zero", "hdr.h.b = c.get_hash(32w100, hdr.h.a, 32w0);", "Hash<bit<32>>(PSA_HashAlgorithm_t.CRC32) c;", 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := parts{fields: "bit<32> a; bit<32> b;", locals: tc.locals, ingress: tc.ingress}.pipeline(t)
			out := run(t, pl, 0, "12345678 00000000")
			if got := binary.BigEndian.Uint32(out[0].data[4:]); got != tc.want {
				t.Errorf("got %#x, want %#x", got, tc.want)
			}
		})
	}
}

func TestRandom(t *testing.T) {
	pl := parts{locals: "Random<bit<8>>(3, 5) r;", ingress: "hdr.h.a = r.read(); random(hdr.h.b, 8w7, 8w9);"}.pipeline(t)
	var seen [2][256]bool
	for range 300 {
		out := run(t, pl, 0, "0000")[0].data
		seen[0][out[0]], seen[1][out[1]] = true, true
	}
	for i := range 256 {
		if seen[0][i] != (i >= 3 && i <= 5) || seen[1][i] != (i >= 7 && i <= 9) {
			t.Errorf("number %d: drawn by read %v, by random %v", i, seen[0][i], seen[1][i])
		}
	}
}

func TestRegisters(t *testing.T) {
	for name, text := range map[string]string{
		"read gives":  "r.write(hdr.h.a, r.read(hdr.h.a) + 1); w.write(32w3, w.read(32w3) + 1);",
		"read stores": "bit<12> x; r.read(x, (bit<32>) hdr.h.a); r.write((bit<32>) hdr.h.a, x + 1); bit<100> y; w.read(y, 32w3); w.write(32w3, y + 1);",
	} {
		t.Run(name, func(t *testing.T) {
			pl := parts{fields: "bit<8> a; bit<8> b;", locals: "Register<bit<12>, bit<8>>(16) r; register<bit<100>>(4) w;", ingress: text}.pipeline(t)
			for range 5 {
				expect(t, pl, 0, "0300", "1:0300")
			}
			// An index that is out of bounds reads as zero, and is not written.
			expect(t, pl, 0, "ff00", "1:ff00")
			if v, err := pl.Register("ingress.r", 3); err != nil || string(v) != "\x00\x05" {
				t.Errorf("the register holds %x, %v", v, err)
			}
			if v, err := pl.Register("ingress.w", 3); err != nil || len(v) != 13 || v[12] != 6 {
				t.Errorf("the wide register holds %x, %v", v, err)
			}
			if err := pl.SetRegister("ingress.r", 3, []byte{0x0f, 0xff}); err != nil {
				t.Error(err)
			}
			expect(t, pl, 0, "0300", "1:0300")
			if v, _ := pl.Register("ingress.r", 3); string(v) != "\x00\x00" {
				t.Errorf("after its largest number the register holds %x", v)
			}
			for _, err := range []error{pl.SetRegister("ingress.r", 3, []byte{0xff, 0xff}), pl.SetRegister("ingress.r", 16, []byte{0, 0}), pl.SetRegister("ingress.x", 0, nil)} {
				if err == nil {
					t.Error("a register was set to what it cannot hold")
				}
			}
		})
	}
}

func TestCounters(t *testing.T) {
	pl := parts{locals: `Counter<bit<32>, bit<8>>(4, PSA_CounterType_t.PACKETS_AND_BYTES) c; counter(4, CounterType.packets) d; DirectCounter<bit<32>>(PSA_CounterType_t.BYTES) dc;
		action x() { dc.count(); } action y() { }
		table t { key = { hdr.h.a: exact; } actions = { x; y; } counters = dc; const entries = { 1: x(); 2: y(); } }`,
		ingress: "c.count(hdr.h.a); d.count(3); t.apply();"}.pipeline(t)
	for _, p := range []string{"0100 aabb", "0100", "0200", "0900"} {
		run(t, pl, 0, p)
	}
	if n, err := pl.Counter("ingress.c", 1); err != nil || n != (Count{2, 6}) {
		t.Errorf("cell 1 counts %+v, %v", n, err)
	}
	if n, err := pl.Counter("ingress.d", 3); err != nil || n.Packets != 4 {
		t.Errorf("cell 3 counts %+v, %v", n, err)
	}
	es, err := pl.Entries("ingress.t")
	if err != nil || es[0].Direct != (Count{2, 6}) || es[0].Count != (Count{2, 6}) || es[1].Direct != (Count{}) || es[1].Count != (Count{1, 2}) {
		t.Errorf("the entries are %+v, %v", es, err)
	}
	if _, err := pl.Counter("ingress.c", 4); err == nil {
		t.Error("a cell that does not exist was read")
	}
}

func TestMeters(t *testing.T) {
	pl := parts{locals: "Meter<bit<8>>(4, PSA_MeterType_t.PACKETS) m; meter(2, MeterType.bytes) v;",
		ingress: "PSA_MeterColor_t c = m.execute(hdr.h.a); if (c == PSA_MeterColor_t.GREEN) { hdr.h.b = 1; } else if (c == PSA_MeterColor_t.YELLOW) { hdr.h.b = 2; } else { hdr.h.b = 3; } bit<8> n; v.execute_meter(32w0, n); hdr.h.b = hdr.h.b | n << 4;"}.pipeline(t)
	expect(t, pl, 0, "0000", "1:0001")
	// No token comes back within this test.
	if err := pl.SetMeter("ingress.m", 1, MeterConfig{CommittedRate: 0, CommittedBurst: 2, PeakRate: 0, PeakBurst: 3}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"01", "01", "02", "03", "03"} {
		expect(t, pl, 0, "0100", "1:01"+want)
	}
	if err := pl.SetMeter("ingress.v", 0, MeterConfig{CommittedBurst: 2, PeakBurst: 4}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"01", "11", "21"} {
		expect(t, pl, 0, "0000", "1:00"+want)
	}
	if err := pl.SetMeter("ingress.m", 1, MeterConfig{CommittedRate: 2, PeakRate: 1}); err == nil {
		t.Error("a meter was set with a peak below the committed rate")
	}
}

// Tokens come back with time, and no more of them than the burst.
func TestMeterRefills(t *testing.T) {
	x := meterCell{config: MeterConfig{CommittedRate: 10, CommittedBurst: 5, PeakRate: 20, PeakBurst: 10}, committed: 5, peak: 10}
	now := time.Unix(1000, 0)
	marks := func(n int) (out string) {
		for range n {
			out += x.mark(now, 1)[:1]
		}
		return out
	}
	if got := marks(11); got != "GGGGGYYYYYR" {
		t.Errorf("a burst is marked %s", got)
	}
	now = now.Add(200 * time.Millisecond)
	if got := marks(5); got != "GGYYR" {
		t.Errorf("after 0.2 s: %s", got)
	}
	now = now.Add(time.Hour)
	if got := marks(11); got != "GGGGGYYYYYR" {
		t.Errorf("after an hour: %s", got)
	}
}

// The kind of a meter or a hash is a member of an enum without values, and not just a number that looks like one.
func TestKindsOfExterns(t *testing.T) {
	for _, locals := range []string{
		"Meter<bit<8>>(4, op_t.far) m;", "Meter<bit<8>>(4, 3) m;", "Hash<bit<8>>(op_t.far) m;", "Hash<bit<8>>(3) m;",
		"Register(4) m;", "Random<bit<8>>(5, 3) m;", "Hash(PSA_HashAlgorithm_t.CRC32) m;", "Counter<bit<8>, bit<8>>(0, PSA_CounterType_t.BYTES) m;",
	} {
		p := parts{globals: "enum bit<16> op_t { far = 300 }", locals: locals}
		_, err := Compile(Files("test.p4", map[string]string{"test.p4": p.text()}))
		if err == nil {
			t.Errorf("%s is taken", locals)
		}
	}
}
