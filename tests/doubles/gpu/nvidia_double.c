/* A TEST DOUBLE of libnvidia-ml and libcuda: the few calls that the agent, the health check and the role make.
   /etc/beta9-gpu-double, or the file that BETA9_GPU_DOUBLE names, holds lines "gpus=2", "busy=1", "nvml=0" (an
   NVML error code: 9 driver not loaded, 18 versions differ; 999 hangs for as long as it is there), "cuda=0" (a CUDA error code: 802 no fabric manager, 803 versions differ; 999000 hangs), "cuda_gpus=2" (by default
   as gpus). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef DRIVER_VERSION
#define DRIVER_VERSION "550.1.1"
#endif

static int setting(const char *name, int otherwise) {
    char line[64];
    int value = otherwise;
    const char *path = getenv("BETA9_GPU_DOUBLE");
    FILE *file = fopen(path ? path : "/etc/beta9-gpu-double", "r");
    if (!file) return otherwise;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == '=') sscanf(line + strlen(name) + 1, "%d", &value);
    fclose(file);
    return value;
}

int nvmlInitWithFlags(unsigned flags) {
    int code;
    while ((code = setting("nvml", 0)) == 999) sleep(1);
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : code == 18 ? "Driver/library version mismatch" : "Unknown Error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, DRIVER_VERSION); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = setting("gpus", 0); return nvmlInitWithFlags(0); } /* as that: the agent keeps its session */
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { snprintf(name, length, "NVIDIA TEST DOUBLE"); return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *infos) {
    int busy = (long)device <= setting("busy", 0);
    int room = *count > 0;
    *count = busy;
    return busy && !room ? 7 : 0; /* insufficient size: the caller asks again with room */
}
int cuInit(unsigned flags) {
    int code = setting("cuda", 0);
    if (code == 999000) sleep(3600);
    return code ? code : setting("cuda_gpus", setting("gpus", 0)) ? 0 : 100; /* as the real one: no device is an error */
}
int cuDeviceGetCount(int *count) { *count = setting("cuda", 0) ? 0 : setting("cuda_gpus", setting("gpus", 0)); return 0; }
