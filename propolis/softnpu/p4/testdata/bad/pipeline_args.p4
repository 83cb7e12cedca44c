parser parse(packet_in pkt) { state start { transition accept; } }
control ingress() { apply { } }
SoftNPU(ingress(), parse(), nobody()) main;
SoftNPU(parse()) again;
