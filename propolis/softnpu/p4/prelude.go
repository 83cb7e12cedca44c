package p4

// preludeText stands before every program. What a program declares itself under one of these names is taken instead.
const preludeText = `
extern packet_in {
    void extract<T>(out T hdr);
    void extract<T>(out T hdr, in bit<32> varbitBits);
    T lookahead<T>();
    void advance(in bit<32> bits);
    bit<32> length();
}
extern packet_out {
    void emit<T>(in T hdr);
}
extern void verify(in bool condition, in error signal);
extern bool static_assert(bool condition, string text);
extern bool static_assert(bool condition);
action NoAction() { }

enum HashAlgorithm { crc32, crc16, identity, csum16, xor16 }
enum PSA_HashAlgorithm_t { IDENTITY, CRC32, CRC16, ONES_COMPLEMENT16, TARGET_DEFAULT }
enum CounterType { packets, bytes, packets_and_bytes }
enum PSA_CounterType_t { PACKETS, BYTES, PACKETS_AND_BYTES }
enum MeterType { packets, bytes }
enum PSA_MeterType_t { PACKETS, BYTES }
enum PSA_MeterColor_t { RED, GREEN, YELLOW }

extern Checksum { bit<16> run<T>(in T data); }
extern InternetChecksum {
    void clear();
    void add<T>(in T data);
    void subtract<T>(in T data);
    bit<16> get();
    bit<16> get_state();
    void set_state(in bit<16> state);
}
extern Register<T, S> {
    Register(bit<32> size);
    T read(in S index);
    void write(in S index, in T value);
}
extern register<T> {
    register(bit<32> size);
    void read(out T result, in bit<32> index);
    void write(in bit<32> index, in T value);
}
extern Counter<W, S> {
    Counter(bit<32> size, PSA_CounterType_t kind);
    void count(in S index);
}
extern counter {
    counter(bit<32> size, CounterType kind);
    void count(in bit<32> index);
}
extern DirectCounter<W> {
    DirectCounter(PSA_CounterType_t kind);
    void count();
}
extern direct_counter {
    direct_counter(CounterType kind);
    void count();
}
extern Meter<S> {
    Meter(bit<32> size, PSA_MeterType_t kind);
    PSA_MeterColor_t execute(in S index);
}
extern meter {
    meter(bit<32> size, MeterType kind);
    void execute_meter<T>(in bit<32> index, out T color);
}
extern Hash<O> {
    Hash(PSA_HashAlgorithm_t algorithm);
    O get_hash<D>(in D data);
    O get_hash<T, D>(in T base, in D data, in T max);
}
extern Random<T> {
    Random(T min, T max);
    T read();
}
extern Replicate { void replicate(in bit<128> bitmap); }
extern void hash<O, T, D, M>(out O result, in HashAlgorithm algorithm, in T base, in D data, in M max);
extern void random<T>(out T result, in T lo, in T hi);
`

// builtIn are the files that a program may include without having them. core.p4 is empty, since all of it is in the
// prelude; softnpu.p4 has the metadata that a switch needs, and room for the next hop, and softnpu_mcast.p4 room for the
// ports that a packet is replicated to as well.
var builtIn = map[string]string{
	"core.p4": "",
	"softnpu.p4": `
struct ingress_metadata_t {
    bit<16> port;
    bool nat;
    bit<16> nat_id;
    bool drop;
}
struct egress_metadata_t {
    bit<16> port;
    bit<128> nexthop_v6;
    bit<32> nexthop_v4;
    bool drop;
    bool broadcast;
}
`,
	"softnpu_mcast.p4": `
struct ingress_metadata_t {
    bit<16> port;
    bool nat;
    bit<16> nat_id;
    bool drop;
}
struct egress_metadata_t {
    bit<16> port;
    bit<128> nexthop_v6;
    bit<32> nexthop_v4;
    bool drop;
    bool broadcast;
    bit<128> bitmap_a;
    bit<128> bitmap_b;
    bit<128> port_bitmap;
}
extern Replicate { void replicate(in bit<128> bitmap); }
`,
}
