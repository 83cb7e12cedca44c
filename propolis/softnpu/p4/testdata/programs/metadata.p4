#include <headers.p4>

struct from_t {
    bit<16> port;
    bit<12> vid;
    vlan_h tag;
}

struct to_t {
    bit<16> port;
    bool drop;
    bool broadcast;
}
