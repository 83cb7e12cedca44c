#include <softnpu_mcast.p4>
SoftNPU(parse(), ingress(), egress()) main;
header h_t { bit<128> a; }
struct headers_t { h_t h; }
parser parse(packet_in pkt, out headers_t hdr, inout ingress_metadata_t im) { state start { pkt.extract(hdr.h); transition accept; } }
control sub(inout egress_metadata_t em) { Replicate() rep; apply { rep.replicate(em.bitmap_a); } }
control ingress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) {
    Replicate(1) bad;
    Replicate() rep;
    sub() s;
    bit<128> local;
    action act() { rep.replicate(em.bitmap_a); }
    apply {
        if (im.nat) { rep.replicate(em.bitmap_a); }
        rep.replicate(hdr.h.a);
        rep.replicate(em.bitmap_a | local);
        rep.replicate();
        rep.replicate(im.nat);
        rep.again();
        rep.replicate(em.bitmap_a[127:0] & ~em.bitmap_b);
        rep.replicate(em.bitmap_b);
        s.apply(em);
        act();
    }
}
control egress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) {
    Replicate() rep;
    apply { rep.replicate(em.bitmap_a); }
}
