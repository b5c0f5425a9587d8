# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that tries GPUs with what their driver brings: libcuda through ctypes, and a kernel in PTX that the
driver compiles.

It runs in a process of its own, one per GPU, since a driver that is ill crashes or hangs it. It needs no CUDA toolkit
and no package.

    python -I - list                        [{"device", "name", "uuid", "bus", "memory_mib"}]
    python -I - DEVICE SECONDS              what try_gpu() returns; SECONDS: how long copies and products are repeated
    python -I - between 0,1,2 SECONDS       what between() returns; SECONDS: how long each copy is repeated
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

MIB = 1 << 20
COPY_BYTES = 256 * MIB
COPIES = 3  # directions, which share the time
PEER_BYTES = 64 * MIB
PEER_ALREADY = "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED"
MEMORY_SHARE = 0.9  # of the free memory, which is allocated and filled
PATTERN = 0xA5A5A5A5
SIZE = 512  # of the square matrices
LAUNCHES, LAUNCH_SECONDS = (
    64,
    0.2,
)  # at most between two looks at the product, so that the GPU and not the look takes the time
TILE = 16  # threads of a block in each direction
PCI = "/sys/bus/pci/devices"
# One thread an element: c[row][column] = sum over k of a[row][k] * b[k][column]. For every GPU from Maxwell on.
PTX = b"""
.version 6.0
.target sm_50
.address_size 64

.visible .entry product(.param .u64 param_a, .param .u64 param_b, .param .u64 param_c, .param .u32 param_n)
{
    .reg .pred %p<3>;
    .reg .f32 %f<4>;
    .reg .b32 %r<11>;
    .reg .b64 %rd<13>;

    ld.param.u64 %rd1, [param_a];
    ld.param.u64 %rd2, [param_b];
    ld.param.u64 %rd3, [param_c];
    ld.param.u32 %r1, [param_n];
    cvta.to.global.u64 %rd1, %rd1;
    cvta.to.global.u64 %rd2, %rd2;
    cvta.to.global.u64 %rd3, %rd3;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    mov.u32 %r6, %ctaid.y;
    mov.u32 %r7, %ntid.y;
    mov.u32 %r8, %tid.y;
    mad.lo.u32 %r9, %r6, %r7, %r8;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    setp.ge.u32 %p2, %r9, %r1;
    @%p2 bra DONE;
    mul.wide.u32 %rd4, %r1, 4;
    mul.wide.u32 %rd5, %r9, %r1;
    shl.b64 %rd6, %rd5, 2;
    add.u64 %rd7, %rd1, %rd6;
    mul.wide.u32 %rd8, %r5, 4;
    add.u64 %rd9, %rd2, %rd8;
    add.u64 %rd10, %rd3, %rd6;
    add.u64 %rd11, %rd10, %rd8;
    mov.f32 %f1, 0f00000000;
    mov.u32 %r10, 0;
LOOP:
    ld.global.f32 %f2, [%rd7];
    ld.global.f32 %f3, [%rd9];
    fma.rn.f32 %f1, %f2, %f3, %f1;
    add.u64 %rd7, %rd7, 4;
    add.u64 %rd9, %rd9, %rd4;
    add.u32 %r10, %r10, 1;
    setp.lt.u32 %p1, %r10, %r1;
    @%p1 bra LOOP;
    st.global.f32 [%rd11], %f1;
DONE:
    ret;
}
"""


class CudaError(Exception):
    """A call of libcuda that failed."""


class Cuda:
    """libcuda, initialised. call("cuMemAlloc_v2", ...) raises CudaError with the name that NVIDIA gives the error."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            name_of_error = (text.value or b"").decode() or f"error {code}"
            raise CudaError(f"{name}: {name_of_error}")

    def number(self, kind: Any, name: str, *arguments: Any) -> Any:
        """Return what a call writes to its first argument."""
        value = kind()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value


def devices(cuda: Cuda) -> List[Dict[str, Any]]:
    """Return what CUDA calls each GPU, in the order of the bus."""
    found = []
    for device in range(cuda.number(ctypes.c_int, "cuDeviceGetCount")):
        handle = ctypes.c_int(cuda.number(ctypes.c_int, "cuDeviceGet", ctypes.c_int(device)))
        name, bus, uuid = ctypes.create_string_buffer(128), ctypes.create_string_buffer(32), (ctypes.c_ubyte * 16)()
        cuda.call("cuDeviceGetName", name, ctypes.c_int(128), handle)
        cuda.call("cuDeviceGetPCIBusId", bus, ctypes.c_int(32), handle)
        cuda.call("cuDeviceGetUuid", uuid, handle)
        memory = cuda.number(ctypes.c_size_t, "cuDeviceTotalMem_v2", handle)
        digits = bytes(uuid).hex()
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        address = bus.value.decode().lower()
        found.append(
            {
                "device": device,
                "name": name.value.decode(),
                "uuid": "GPU-" + "-".join(parts),
                "bus": address,
                "memory_mib": memory // MIB,
            }
        )
    return found


def repeated(action: Callable[[], None], seconds: float, finish: Callable[[], None]) -> float:
    """Repeat an action for so long; return the seconds of one. finish waits until the GPU has done what it was told."""
    action()
    finish()
    count, start = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - start < seconds:
        action()
        count += 1
        if count % 8 == 0:
            finish()
    finish()
    return (time.perf_counter() - start) / count


def link(bus: str, root: str = PCI) -> Dict[str, Any]:
    """Return {"speed", "width", "max_speed", "max_width"} of a GPU's PCIe link as it is now, in GT/s and lanes.

    The most is what both the GPU and the port above it can do. {} where the kernel does not tell.
    """

    def read(folder: str, name: str) -> float:
        with open(os.path.join(folder, name), encoding="ascii") as stream:
            return float(stream.read().split()[0])

    folder = os.path.realpath(os.path.join(root, bus))
    try:
        found = {
            name: read(folder, what)
            for name, what in (("speed", "current_link_speed"), ("width", "current_link_width"))
        }
        for name, what in (("max_speed", "max_link_speed"), ("max_width", "max_link_width")):
            try:
                found[name] = min(read(folder, what), read(os.path.dirname(folder), what))
            except (OSError, ValueError):
                found[name] = read(folder, what)  # a virtual machine shows no port
    except (OSError, ValueError, IndexError):
        return {}
    return found


def fill(cuda: Cuda) -> Tuple[int, int]:
    """Allocate most of the free memory, fill it and read the ends of each piece. Return (MiB, pieces that were
    wrong)."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    piece = max(MIB, min(1024 * MIB, int(free.value * MEMORY_SHARE) // 8 // MIB * MIB))
    pointers: List[Any] = []
    wrong = 0
    try:
        for _number in range(int(free.value * MEMORY_SHARE) // piece):
            pointers.append(ctypes.c_uint64(cuda.number(ctypes.c_uint64, "cuMemAlloc_v2", ctypes.c_size_t(piece))))
            cuda.call("cuMemsetD32_v2", pointers[-1], ctypes.c_uint(PATTERN), ctypes.c_size_t(piece // 4))
        expected = PATTERN.to_bytes(4, "little") * (MIB // 4)
        buffer = ctypes.create_string_buffer(MIB)
        for pointer in pointers:
            for offset in (0, piece - MIB):
                cuda.call("cuMemcpyDtoH_v2", buffer, ctypes.c_uint64(pointer.value + offset), ctypes.c_size_t(MIB))
                wrong += buffer.raw != expected
    finally:
        for pointer in pointers:
            cuda.call("cuMemFree_v2", pointer)
    return len(pointers) * piece // MIB, wrong


def sample(cuda: Cuda, octets: int) -> Tuple[Any, Any]:
    """Allocate two pieces of the host's memory that the GPU can reach. The first holds what a copy must not change."""
    size = ctypes.c_size_t(octets)
    sent = ctypes.c_void_p(cuda.number(ctypes.c_void_p, "cuMemHostAlloc", size, ctypes.c_uint(0)))
    back = ctypes.c_void_p(cuda.number(ctypes.c_void_p, "cuMemHostAlloc", size, ctypes.c_uint(0)))
    block = bytes(range(251)) * 4180  # of a length that is no power of two, so that a shifted copy differs
    for offset in range(0, octets, len(block)):
        ctypes.memmove(sent.value + offset, block, min(len(block), octets - offset))  # type: ignore[operator]
    ctypes.memset(back, 0, octets)
    return sent, back


def differ(one: Any, other: Any, octets: int) -> int:
    """Return 1 where two pieces of the host's memory differ, else 0."""
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return int(compare(one, other, octets) != 0)


def copy(cuda: Cuda, memory_mib: int, seconds: float) -> Dict[str, Any]:
    """Copy between host and GPU and within the GPU. Return GB/s, and whether what came back is what was sent."""
    size = ctypes.c_size_t(min(COPY_BYTES, memory_mib * MIB // 8))
    sent, back = sample(cuda, size.value)
    one, two = (ctypes.c_uint64(cuda.number(ctypes.c_uint64, "cuMemAlloc_v2", size)) for _number in range(2))

    def wait() -> None:
        cuda.call("cuCtxSynchronize")

    up = repeated(lambda: cuda.call("cuMemcpyHtoD_v2", one, sent, size), seconds / COPIES, wait)
    within = repeated(lambda: cuda.call("cuMemcpyDtoD_v2", two, one, size), seconds / COPIES, wait)
    down = repeated(lambda: cuda.call("cuMemcpyDtoH_v2", back, two, size), seconds / COPIES, wait)
    wrong = differ(sent, back, size.value)
    for pointer in (one, two):
        cuda.call("cuMemFree_v2", pointer)
    for host in (sent, back):
        cuda.call("cuMemFreeHost", host)
    giga = size.value / 1e9
    # within the GPU each octet is read and written
    return {
        "host_to_device": giga / up,
        "device_to_host": giga / down,
        "device_to_device": 2 * giga / within,
        "copies_wrong": wrong,
    }


def between(cuda: Cuda, numbers: List[int], seconds: float) -> List[Dict[str, Any]]:
    """Copy from each of these GPUs to each other one. Return {"source", "target", "direct", "gb_s", "wrong"} of each
    copy, or {"source", "target", "error"}; direct: whether the driver lets one read the other's memory, else it copies
    through the host."""
    size = ctypes.c_size_t(PEER_BYTES)
    contexts, outgoing, incoming = {}, {}, {}
    for number in numbers:
        contexts[number] = ctypes.c_void_p()
        cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(contexts[number]), ctypes.c_int(number))
        cuda.call("cuCtxSetCurrent", contexts[number])
        outgoing[number], incoming[number] = (
            ctypes.c_uint64(cuda.number(ctypes.c_uint64, "cuMemAlloc_v2", size)) for _number in range(2)
        )
        if number == numbers[0]:
            sent, back = sample(cuda, size.value)
        cuda.call("cuMemcpyHtoD_v2", outgoing[number], sent, size)

    def direct(source: int, target: int) -> bool:
        able = cuda.number(ctypes.c_int, "cuDeviceCanAccessPeer", ctypes.c_int(source), ctypes.c_int(target))
        if able:
            cuda.call("cuCtxSetCurrent", contexts[source])
            try:
                cuda.call("cuCtxEnablePeerAccess", contexts[target], ctypes.c_uint(0))
            except CudaError as error:
                if PEER_ALREADY not in str(error):
                    raise
        return bool(able)

    def one(source: int, target: int) -> Dict[str, Any]:
        both = all(direct(*pair) for pair in ((source, target), (target, source)))
        cuda.call("cuCtxSetCurrent", contexts[target])
        cuda.call("cuMemsetD32_v2", incoming[target], ctypes.c_uint(0), ctypes.c_size_t(size.value // 4))
        arguments = (incoming[target], contexts[target], outgoing[source], contexts[source], size)
        took = repeated(lambda: cuda.call("cuMemcpyPeer", *arguments), seconds, lambda: cuda.call("cuCtxSynchronize"))
        cuda.call("cuMemcpyDtoH_v2", back, incoming[target], size)
        return {"direct": both, "gb_s": size.value / 1e9 / took, "wrong": differ(sent, back, size.value)}

    found = []
    for source in numbers:
        for target in numbers:
            if source != target:
                try:
                    answer = one(source, target)
                except CudaError as error:
                    answer = {"error": str(error)}
                found.append(dict(answer, source=source, target=target))
    return found


def matrices(size: int = SIZE) -> Tuple[bytes, bytes, bytes]:
    """Return two matrices and their product, rows after rows as 32-bit floats: numbers so small that the product is
    exact.

    a[i][k] = (1 + i % 7) * w(k), b[k][j] = w(k) * (1 + j % 5), w(k) = 1 + k % 8,
    so c[i][j] = (1 + i % 7) * (1 + j % 5) * sum of w(k) squared.
    """
    weights = [1 + k % 8 for k in range(size)]
    squares = sum(weight * weight for weight in weights)
    columns = [1 + j % 5 for j in range(size)]
    a_rows = [array.array("f", [factor * weight for weight in weights]).tobytes() for factor in range(1, 8)]
    b_rows = [array.array("f", [weight * column for column in columns]).tobytes() for weight in range(1, 9)]
    c_rows = [array.array("f", [factor * column * squares for column in columns]).tobytes() for factor in range(1, 8)]
    a, b, c = (b"".join(rows[i % len(rows)] for i in range(size)) for rows in (a_rows, b_rows, c_rows))
    return a, b, c


def multiply(cuda: Cuda, seconds: float) -> Dict[str, Any]:
    """Multiply two matrices again and again, and compare each product. Return how many there were, how many wrong,
    and GFLOP/s."""
    a, b, expected = matrices()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX))
    cuda.call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(b"product"))
    octets = ctypes.c_size_t(len(a))
    pointers = [ctypes.c_uint64(cuda.number(ctypes.c_uint64, "cuMemAlloc_v2", octets)) for _number in range(3)]
    for pointer, content in zip(pointers, (a, b)):
        cuda.call("cuMemcpyHtoD_v2", pointer, ctypes.c_char_p(content), octets)
    values = [*pointers, ctypes.c_uint(SIZE)]
    parameters = (ctypes.c_void_p * 4)(*(ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values))
    blocks, one = ctypes.c_uint(SIZE // TILE), ctypes.c_uint(1)
    grid, tile = (blocks, blocks, one), (ctypes.c_uint(TILE), ctypes.c_uint(TILE), one)
    found = ctypes.create_string_buffer(len(a))
    products = looks = wrong = 0
    busy = 0.0
    start = time.perf_counter()
    while not looks or time.perf_counter() - start < seconds:
        launches = max(1, min(LAUNCHES, int(LAUNCH_SECONDS * products / busy))) if looks else 1
        cuda.call("cuMemsetD32_v2", pointers[2], ctypes.c_uint(0), ctypes.c_size_t(len(a) // 4))
        began = time.perf_counter()
        for _number in range(launches):
            cuda.call("cuLaunchKernel", function, *grid, *tile, ctypes.c_uint(0), None, parameters, None)
        cuda.call("cuCtxSynchronize")
        busy += time.perf_counter() - began
        cuda.call("cuMemcpyDtoH_v2", found, pointers[2], octets)
        products += launches
        looks += 1
        wrong += found.raw != expected
    for pointer in pointers:
        cuda.call("cuMemFree_v2", pointer)
    cuda.call("cuModuleUnload", module)
    return {"products": products, "products_wrong": wrong, "gflops": 2.0 * SIZE**3 * products / busy / 1e9}


def try_gpu(cuda: Cuda, device: int, seconds: float) -> Dict[str, Any]:
    """Return what a GPU did: devices()' entry, allocated_mib, GB/s, link, products; error where a call failed, and
    what came before it."""
    found: Dict[str, Any] = devices(cuda)[device]
    context = ctypes.c_void_p()
    try:
        cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(device))
        cuda.call("cuCtxSetCurrent", context)
        found["allocated_mib"], found["memory_wrong"] = fill(cuda)
        found.update(copy(cuda, found["memory_mib"], seconds))
        found["link"] = link(found["bus"])  # at once after the copies: an idle GPU slows its link down
        found.update(multiply(cuda, seconds))
        cuda.call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(device))
    except CudaError as error:
        found["error"] = str(error)
    return found


def main() -> None:
    """Write what was asked for as JSON."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        cuda = Cuda()
        answer: Any
        if sys.argv[1] == "list":
            answer = devices(cuda)
        elif sys.argv[1] == "between":
            answer = between(cuda, [int(number) for number in sys.argv[2].split(",")], float(sys.argv[3]))
        else:
            answer = try_gpu(cuda, int(sys.argv[1]), float(sys.argv[2]))
    except (CudaError, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
