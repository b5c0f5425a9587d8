/* A TEST DOUBLE of libnvidia-ml and libcuda: the calls that the agent, the health check and the role make.
   /etc/beta9-gpu-double, or the file that BETA9_GPU_DOUBLE names, holds lines NAME=NUMBER for all GPUs or NAME.INDEX=NUMBER for one:
   gpus, busy (how many have a process), busy_pid, nvml (an NVML error code: 9 driver not loaded, 18 versions differ; 999 hangs for as long
   as it is there), cuda (a CUDA error code: 802 no fabric manager, 803 versions differ; 999000 hangs), cuda_gpus (by default as gpus).
   Of one GPU: what the calls below read, with healthy defaults of a data centre GPU; consumer=1 for one that lacks the counters.
   Numbers are those of nvml.h. What a GPU tells without settings, and how it refuses, is what an H100 SXM and an H200 in a virtual
   machine told with driver 580.159.04 (tests/unit/health/gpus); NVLinks, fabric, MIG and faults of several GPUs were not seen on real ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef DRIVER_VERSION
#define DRIVER_VERSION "550.1.1"
#endif
#define NOT_SUPPORTED 3
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6
#define VERSION_MISMATCH 25

typedef unsigned long long u64;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { unsigned version; unsigned char cluster[16]; int status; unsigned clique; unsigned char state; unsigned health; } fabric_info;
typedef struct { unsigned version; u64 counts[11]; unsigned exceeded; } sram_status;
typedef struct { unsigned version, channel, tpc; } repair_status;
typedef struct { unsigned field, scope; long long timestamp, latency; int type, code; union { unsigned number; u64 wide; double real; } value; } field_value;

/* the last line of a name counts, and a line of one GPU counts before one of all */
static int setting_of(void *device, const char *name, int otherwise) {
    char line[64], own[48];
    int value = otherwise, exact = 0;
    const char *path = getenv("BETA9_GPU_DOUBLE");
    FILE *file = fopen(path ? path : "/etc/beta9-gpu-double", "r");
    if (!file) return otherwise;
    snprintf(own, sizeof own, "%s.%ld=", name, (long)device - 1);
    while (fgets(line, sizeof line, file)) {
        if (device && !strncmp(line, own, strlen(own))) exact = sscanf(line + strlen(own), "%d", &value) == 1;
        else if (!exact && !strncmp(line, name, strlen(name)) && line[strlen(name)] == '=') {
            const char *text = line + strlen(name) + 1;
            if (!strncmp(text, "Enabled", 7)) value = 1; /* as nvidia-smi's double has it */
            else if (!strncmp(text, "Disabled", 8)) value = 0;
            else sscanf(text, "%d", &value);
        }
    }
    fclose(file);
    return value;
}
static int setting(const char *name, int otherwise) { return setting_of(NULL, name, otherwise); }
/* the error of a GPU: 15 lost, 16 to be reset; 3 where it is one for consumers and lacks the counter */
static int lost(void *device) { return setting_of(device, "error", 0); }
static int lacks(void *device) { int code = lost(device); return code ? code : setting_of(device, "consumer", 0) ? NOT_SUPPORTED : 0; }
#define GIVE(call, refuse, name, otherwise) \
    int call(void *device, unsigned *value) { int code = refuse(device); *value = code ? 0 : setting_of(device, name, otherwise); return code; }

int nvmlInitWithFlags(unsigned flags) {
    int code;
    (void)flags;
    while ((code = setting("nvml", 0)) == 999) sleep(1);
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) {
    switch (code) {
        case 3: return "Not Supported";
        case 9: return "Driver Not Loaded";
        case 15: return "GPU is lost";
        case 16: return "GPU requires restart";
        case 18: return "Driver/library version mismatch";
    }
    return "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, DRIVER_VERSION); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = setting("gpus", 0); return nvmlInitWithFlags(0); } /* as that: the agent keeps its session */
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return lost(*device); }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { snprintf(name, length, "NVIDIA TEST DOUBLE"); return lost(device); }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) { snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012ld", (long)device - 1); return lost(device); }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *infos) {
    int busy = (long)device <= setting("busy", 0), code = lost(device);
    int room = *count > 0;
    if (code) return code;
    *count = busy;
    if (busy && room) memset(infos, 0, sizeof *infos), infos->pid = setting("busy_pid", 0);
    return busy && !room ? 7 : 0; /* insufficient size: the caller asks again with room */
}
int nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending) {
    *current = setting_of(device, "ecc", 1);
    *pending = setting_of(device, "ecc_pending", *current);
    return lacks(device);
}
GIVE(nvmlDeviceGetDefaultEccMode, lacks, "ecc_default", 1)
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, u64 *count) {
    *count = kind == 1 && counter == 0 ? setting_of(device, "uncorrected", 0) : 0;
    return lacks(device);
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    *corrected = *uncorrected = 0;
    *pending = setting_of(device, "remap_pending", 0);
    *failed = setting_of(device, "remap_failed", 0);
    return lacks(device);
}
int nvmlDeviceGetRetiredPagesPendingStatus(void *device, unsigned *pending) { /* GPUs that remap rows retire no pages */
    int told = setting_of(device, "pages_pending", -1);
    *pending = told > 0;
    return lacks(device) ? lacks(device) : told < 0 ? NOT_SUPPORTED : 0;
}
int nvmlDeviceGetSramEccErrorStatus(void *device, sram_status *status) {
    if (status->version != (1u << 24 | sizeof *status)) return VERSION_MISMATCH;
    memset(status->counts, 0, sizeof status->counts);
    status->exceeded = setting_of(device, "sram_exceeded", 0);
    return lacks(device);
}
int nvmlDeviceGetRepairStatus(void *device, repair_status *status) {
    if (status->version != (1u << 24 | sizeof *status)) return VERSION_MISMATCH;
    status->channel = setting_of(device, "channel_repair", 0);
    status->tpc = setting_of(device, "tpc_repair", 0);
    return lacks(device);
}
/* 1: idle, as every GPU says that does nothing */
int nvmlDeviceGetCurrentClocksEventReasons(void *device, u64 *reasons) {
    *reasons = setting_of(device, "reasons", setting_of(device, "utilization", 0) ? 0 : 1);
    return lost(device);
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) { (void)sensor; *degrees = setting_of(device, "temperature", 45); return lost(device); }
int nvmlDeviceGetTemperatureThreshold(void *device, int kind, unsigned *degrees) { *degrees = kind == 1 ? 89 : 95; return lost(device); }
GIVE(nvmlDeviceGetPowerUsage, lost, "power", 90000)
GIVE(nvmlDeviceGetEnforcedPowerLimit, lost, "power_limit", 400000)
GIVE(nvmlDeviceGetPowerManagementDefaultLimit, lost, "power_default", 400000)
int nvmlDeviceGetApplicationsClock(void *device, int kind, unsigned *mhz) { (void)kind; *mhz = setting_of(device, "clock", 1410); return lacks(device); }
int nvmlDeviceGetDefaultApplicationsClock(void *device, int kind, unsigned *mhz) { (void)kind; *mhz = 1410; return lacks(device); }
GIVE(nvmlDeviceGetCurrPcieLinkGeneration, lost, "pcie_generation", 4)
GIVE(nvmlDeviceGetMaxPcieLinkGeneration, lost, "pcie_generation_max", 4)
GIVE(nvmlDeviceGetCurrPcieLinkWidth, lost, "pcie_width", 16)
GIVE(nvmlDeviceGetMaxPcieLinkWidth, lost, "pcie_width_max", 16)
GIVE(nvmlDeviceGetPerformanceState, lost, "pstate", 0)
int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) { rates[0] = setting_of(device, "utilization", 0); rates[1] = 0; return lost(device); }
int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active) {
    int links = setting_of(device, "links", 12);
    *active = (int)link < links - setting_of(device, "links_down", 0);
    return lacks(device) ? lacks(device) : (int)link < links ? 0 : links ? INVALID_ARGUMENT : NOT_SUPPORTED;
}
int nvmlDeviceGetNvLinkErrorCounter(void *device, unsigned link, int counter, u64 *count) {
    *count = link == 0 && counter == 1 ? setting_of(device, "link_recoveries", 0) : 0;
    return lacks(device);
}
GIVE(nvmlDeviceGetPersistenceMode, lost, "persistence", 1)
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    *current = setting_of(device, "mig", 0);
    *pending = setting_of(device, "mig_pending", *current);
    return lacks(device);
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = setting_of(device, "mig", 0) ? 7 : 0; return lacks(device); }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    *instance = device;
    return (int)index < setting_of(device, "instances", 0) ? 0 : NOT_FOUND;
}
int nvmlDeviceGetGspFirmwareVersion(void *device, char *version) {
    strcpy(version, setting_of(device, "firmware_differs", 0) ? "535.1.1" : DRIVER_VERSION);
    return lacks(device);
}
int nvmlDeviceGetGpuFabricInfoV(void *device, fabric_info *info) {
    if (info->version != (2u << 24 | sizeof *info)) return VERSION_MISMATCH;
    info->state = setting_of(device, "fabric", 0); /* 0: no fabric, 1 not started, 2 in progress, 3 completed */
    info->status = setting_of(device, "fabric_status", 0);
    info->health = setting_of(device, "fabric_health", info->state ? 2 : 0);
    return lacks(device);
}
int nvmlDeviceGetP2PStatus(void *one, void *other, int kind, int *status) {
    (void)kind;
    *status = lacks(one) ? NOT_SUPPORTED : setting_of(one, "p2p", 0);
    return lost(one) ? lost(one) : lost(other);
}
int nvmlDeviceGetFieldValues(void *device, int count, field_value *values) {
    int n;
    for (n = 0; n < count; n++) {
        values[n].code = values[n].field == 230 ? lacks(device) : NOT_SUPPORTED;
        values[n].type = 1;
        values[n].value.wide = 0;
        values[n].value.number = setting_of(device, "recovery", 0);
    }
    return lost(device);
}

/* libcuda: a GPU's memory is the host's, and the one kernel that is launched is the matrix product, whatever the PTX says.
   cuda_memory_mib; of one GPU: cuda_alloc=CODE (2 out of memory), cuda_memory_wrong, cuda_copy_wrong, cuda_product_wrong=1,
   cuda_slow=MILLISECONDS a copy within the GPU, cuda_hang=1, cuda_l4=1 for the name of a model with an expectation;
   cuda_peer=0 no direct copies, cuda_peer_wrong, cuda_peer_slow=MILLISECONDS for copies from or to the GPU */
#pragma GCC optimize("O3")
static __thread long current; /* device + 1 */
static void *gpu(void) { return (void *)current; }

int cuInit(unsigned flags) {
    int code = setting("cuda", 0);
    (void)flags;
    if (code == 999000) sleep(3600);
    return code ? code : setting("cuda_gpus", setting("gpus", 0)) ? 0 : 100; /* as the real one: no device is an error */
}
int cuDeviceGetCount(int *count) { *count = setting("cuda", 0) ? 0 : setting("cuda_gpus", setting("gpus", 0)); return 0; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 704 ? "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED" : code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_UNKNOWN";
    return 0;
}
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, length, setting_of((void *)(long)(device + 1), "cuda_l4", 0) ? "NVIDIA L4" : "NVIDIA TEST DOUBLE");
    return 0;
}
int cuDeviceGetPCIBusId(char *bus, int length, int device) { snprintf(bus, length, "0000:%02X:00.0", device + 1); return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, 0, 16); uuid[15] = device; return 0; } /* as NVML's, below ten GPUs */
int cuDeviceTotalMem_v2(size_t *octets, int device) { (void)device; *octets = (size_t)setting("cuda_memory_mib", 64) << 20; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(long)(device + 1);
    while (setting_of(*context, "cuda_hang", 0)) sleep(1);
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
int cuCtxSetCurrent(void *context) { current = (long)context; return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuMemGetInfo_v2(size_t *available, size_t *total) { cuDeviceTotalMem_v2(total, 0); *available = *total; return 0; }
int cuMemAlloc_v2(u64 *pointer, size_t octets) {
    int code = setting_of(gpu(), "cuda_alloc", 0);
    *pointer = code ? 0 : (u64)malloc(octets);
    return code ? code : *pointer ? 0 : 2;
}
int cuMemFree_v2(u64 pointer) { free((void *)pointer); return 0; }
int cuMemHostAlloc(void **pointer, size_t octets, unsigned flags) { (void)flags; *pointer = malloc(octets); return *pointer ? 0 : 2; }
int cuMemFreeHost(void *pointer) { free(pointer); return 0; }
int cuMemsetD32_v2(u64 pointer, unsigned value, size_t count) {
    size_t n;
    for (n = 0; n < count; n++) ((unsigned *)pointer)[n] = value;
    if (setting_of(gpu(), "cuda_memory_wrong", 0)) ((unsigned *)pointer)[count - 1] ^= 1;
    return 0;
}
int cuMemcpyHtoD_v2(u64 to, const void *from, size_t octets) { memcpy((void *)to, from, octets); return 0; }
int cuMemcpyDtoD_v2(u64 to, u64 from, size_t octets) {
    int slow = setting_of(gpu(), "cuda_slow", 0);
    memcpy((void *)to, (void *)from, octets);
    if (setting_of(gpu(), "cuda_copy_wrong", 0)) ((char *)to)[octets / 2] ^= 1;
    if (slow) usleep(1000 * slow);
    return 0;
}
/* from and to other GPUs. A GPU is no peer of itself, as with the real one */
int cuDeviceCanAccessPeer(int *able, int one, int other) { *able = one != other && setting_of((void *)(long)(one + 1), "cuda_peer", 1); return 0; }
int cuCtxEnablePeerAccess(void *context, unsigned flags) {
    static char enabled[16][16];
    char *seen = &enabled[current & 15][(long)context & 15];
    (void)flags;
    return (*seen)++ ? 704 : 0; /* already enabled */
}
int cuMemcpyPeer(u64 to, void *target, u64 from, void *source, size_t octets) {
    int slow = setting_of(target, "cuda_peer_slow", 0) + setting_of(source, "cuda_peer_slow", 0);
    memcpy((void *)to, (void *)from, octets);
    if (setting_of(target, "cuda_peer_wrong", 0) || setting_of(source, "cuda_peer_wrong", 0)) ((char *)to)[octets / 2] ^= 1;
    if (slow) usleep(1000 * slow);
    return 0;
}
int cuMemcpyDtoH_v2(void *to, u64 from, size_t octets) { memcpy(to, (void *)from, octets); return 0; }
int cuModuleLoadData(void **module, const void *image) { *module = (void *)image; return strstr(image, ".visible .entry product(") ? 0 : 218; } /* invalid PTX */
int cuModuleUnload(void *module) { (void)module; return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { *function = module; return strcmp(name, "product") ? 500 : 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **values, void **extra) {
    const float *a = (const float *)*(u64 *)values[0], *b = (const float *)*(u64 *)values[1];
    float *restrict c = (float *)*(u64 *)values[2];
    unsigned n = *(unsigned *)values[3], i, j, k;
    (void)function, (void)shared, (void)stream, (void)extra;
    if (gx * bx < n || gy * by < n || gz * bz != 1) return 1;
    memset(c, 0, sizeof *c * n * n);
    for (i = 0; i < n; i++)
        for (k = 0; k < n; k++) {
            const float factor = a[i * n + k], *row = b + k * n;
            for (j = 0; j < n; j++) c[i * n + j] += factor * row[j];
        }
    if (setting_of(gpu(), "cuda_product_wrong", 0)) c[n * n / 2] += 1;
    return 0;
}
