// A stand-in for libnvrtc: has kernel.py make a shared object of a kernel, whose path takes the place of PTX.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <unistd.h>

namespace {

using Result = int;

constexpr Result SUCCESS = 0, COMPILATION = 6;

struct Program {
    std::string source, log, object;
};

// FNV-1a.
uint64_t hash(const std::string& text) {
    uint64_t hash = 0xcbf29ce484222325;
    for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}

}  // namespace

extern "C" {

Result nvrtcVersion(int* major, int* minor) {
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

const char* nvrtcGetErrorString(Result result) { return result == SUCCESS ? "success" : "g++ refuses the kernel"; }

Result nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return SUCCESS;
}

Result nvrtcDestroyProgram(void** program) {
    delete static_cast<Program*>(*program);
    *program = nullptr;
    return SUCCESS;
}

Result nvrtcCompileProgram(void* handle, int, const char* const*) {
    auto* program = static_cast<Program*>(handle);
    char name[32];
    snprintf(name, sizeof name, "/%016lx", hash(program->source));
    const std::string stem = getenv("BURNISH_KERNELS") + std::string(name);
    program->object = stem + ".so";
    if (access(program->object.c_str(), R_OK) == 0) return SUCCESS;
    // Several processes may compile one kernel: each writes files of its own, and the last rename stays.
    const std::string own = stem + "-" + std::to_string(getpid());
    std::ofstream(own + ".cu") << program->source;
    if (system((std::string(getenv("BURNISH_COMPILE")) + " " + own).c_str()) != 0) {
        program->log = "g++ refuses " + own + ".cpp";
        fprintf(stderr, "compiler.cpp: %s\n", program->log.c_str());
        return COMPILATION;
    }
    rename((own + ".cu").c_str(), (stem + ".cu").c_str());
    rename((own + ".cpp").c_str(), (stem + ".cpp").c_str());
    rename((own + ".so").c_str(), program->object.c_str());
    return SUCCESS;
}

Result nvrtcGetPTXSize(void* program, size_t* size) {
    *size = static_cast<Program*>(program)->object.size() + 1;
    return SUCCESS;
}

Result nvrtcGetPTX(void* program, char* text) {
    strcpy(text, static_cast<Program*>(program)->object.c_str());
    return SUCCESS;
}

Result nvrtcGetProgramLogSize(void* program, size_t* size) {
    *size = static_cast<Program*>(program)->log.size() + 1;
    return SUCCESS;
}

Result nvrtcGetProgramLog(void* program, char* text) {
    strcpy(text, static_cast<Program*>(program)->log.c_str());
    return SUCCESS;
}

}  // extern "C"
