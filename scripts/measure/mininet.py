"""A ring of Mininet's hosts, or a single one, until the input ends."""
import sys

from mininet.net import Mininet
from mininet.topo import Topo


class Ring(Topo):
    def build(self, n):
        hosts = [self.addHost("h%d" % i) for i in range(n)]
        for i in range(n if n > 1 else 0):
            self.addLink(hosts[i], hosts[(i + 1) % n])


net = Mininet(topo=Ring(int(sys.argv[1])), controller=None)
net.start()
for host in net.hosts:
    if host.cmd("true && echo yes").strip() != "yes":
        sys.exit("%s does not answer" % host.name)
print("ready", *[host.pid for host in net.hosts], flush=True)
sys.stdin.read()
net.stop()
