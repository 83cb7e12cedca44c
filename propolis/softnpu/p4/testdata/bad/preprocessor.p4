#include <nowhere.p4>
#include nowhere
#include <>
#include "included.p4"
#define F(x, y) x + y
const bit<8> A = F(1);
#if A +
#endif
#else
#error this is wrong
#warning this is odd
#undef
#nonsense
#ifdef B
#error never seen
