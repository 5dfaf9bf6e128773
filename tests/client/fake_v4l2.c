/* Cameras that the kernel seems to have: preloaded into a process, it answers for /dev/video* as Video4Linux does.
 *
 * $FAKE_V4L2/dev and $FAKE_V4L2/sys stand for /dev and /sys/class/video4linux. A file dev/videoN is a camera; it holds its
 * state, a word: "on", "dark", "frozen" (one picture for ever), "silent" (no picture), "busy" (in use), "denied". A file
 * that is taken away is a camera unplugged, also for those who have it open.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 320, HEIGHT = 240, BYTES = WIDTH * HEIGHT * 2, BUFFERS = 8, MOST = 1024 };
#define SLOT ((BYTES + 4095) & ~4095)

struct camera {
    char path[PATH_MAX];
    ino_t identity;
    unsigned char *memory;
    int queue[BUFFERS], queued;
    unsigned shown;
};
static struct camera *cameras[MOST];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *placed(const char *path, char *place) {
    const char *root = getenv("FAKE_V4L2");
    const char *sys = "/sys/class/video4linux";
    if (root == NULL || path == NULL) return path;
    if (strncmp(path, "/dev/video", 10) == 0 || strcmp(path, "/dev") == 0 || strcmp(path, "/dev/") == 0)
        snprintf(place, PATH_MAX, "%s%s", root, path);
    else if (strncmp(path, sys, strlen(sys)) == 0)
        snprintf(place, PATH_MAX, "%s/sys%s", root, path + strlen(sys));
    else
        return path;
    return place;
}

static int state_of(const char *path, char *state) {
    int file = REAL(open)(path, O_RDONLY);
    if (file < 0) return -1;
    ssize_t length = read(file, state, 31);
    close(file);
    state[length < 0 ? 0 : length] = 0;
    state[strcspn(state, "\n")] = 0;
    return 0;
}

static int open_camera(const char *path) {
    char state[32];
    struct stat found;
    if (REAL(stat)(path, &found) != 0 || state_of(path, state) != 0) return errno = ENOENT, -1;
    if (strcmp(state, "denied") == 0) return errno = EACCES, -1;
    int device = memfd_create("camera", 0);
    if (device < 0 || device >= MOST || ftruncate(device, BUFFERS * SLOT) != 0) abort();
    struct camera *camera = calloc(1, sizeof *camera);
    snprintf(camera->path, PATH_MAX, "%s", path);
    camera->identity = found.st_ino;
    camera->memory = REAL(mmap)(NULL, BUFFERS * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    cameras[device] = camera;
    return device;
}

static int opened(const char *path, int flags, mode_t mode) {
    char place[PATH_MAX];
    const char *real = placed(path, place);
    if (real != path && strncmp(path, "/dev/video", 10) == 0) return open_camera(real);
    return REAL(open)(real, flags, mode);
}

#define MODE() va_list rest; va_start(rest, flags); mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest)
int open(const char *path, int flags, ...) { MODE(); return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(); return opened(path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) {
    MODE();
    return path != NULL && path[0] == '/' ? opened(path, flags, mode) : REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE();
    return path != NULL && path[0] == '/' ? opened(path, flags, mode) : REAL(openat)(at, path, flags | O_LARGEFILE, mode);
}
DIR *opendir(const char *path) { char place[PATH_MAX]; return REAL(opendir)(placed(path, place)); }
int stat(const char *path, struct stat *found) { char place[PATH_MAX]; return REAL(stat)(placed(path, place), found); }
int lstat(const char *path, struct stat *found) { char place[PATH_MAX]; return REAL(lstat)(placed(path, place), found); }
int stat64(const char *path, struct stat64 *found) { char place[PATH_MAX]; return REAL(stat64)(placed(path, place), found); }
int lstat64(const char *path, struct stat64 *found) { char place[PATH_MAX]; return REAL(lstat64)(placed(path, place), found); }

int access(const char *path, int mode) {
    char place[PATH_MAX], state[32];
    const char *real = placed(path, place);
    if (real != path && state_of(real, state) == 0 && strcmp(state, "denied") == 0) return errno = EACCES, -1;
    return REAL(access)(real, mode);
}

int close(int file) {
    if (file >= 0 && file < MOST && cameras[file] != NULL) {
        munmap(cameras[file]->memory, BUFFERS * SLOT);
        free(cameras[file]);
        cameras[file] = NULL;
    }
    return REAL(close)(file);
}

static void wait_ms(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

int select(int count, fd_set *readable, fd_set *writable, fd_set *special, struct timeval *timeout) {
    for (int file = 0; readable != NULL && timeout != NULL && file < count && file < MOST; file++) {
        char state[32] = "";
        if (cameras[file] == NULL || !FD_ISSET(file, readable)) continue;
        if (state_of(cameras[file]->path, state) != 0 || strcmp(state, "silent") != 0) continue;
        wait_ms(timeout->tv_sec * 1000 + timeout->tv_usec / 1000);
        FD_ZERO(readable);
        return 0;
    }
    return REAL(select)(count, readable, writable, special, timeout);
}

/* A pattern with edges whose shade goes on from picture to picture, in YUYV. */
static void draw(struct camera *camera, const char *state, unsigned char *to) {
    unsigned shade = strcmp(state, "frozen") == 0 ? 7 : camera->shown;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            unsigned char luma = strcmp(state, "dark") == 0 ? 16 : 40 + ((x / 16 + y / 16) % 2) * 120 + shade % 50;
            to[2 * (y * WIDTH + x)] = luma;
            to[2 * (y * WIDTH + x) + 1] = 128;
        }
}

static int dequeue(struct camera *camera, const char *state, struct v4l2_buffer *buffer) {
    if (strcmp(state, "silent") == 0 || camera->queued == 0) return errno = EAGAIN, -1;
    wait_ms(33);
    int index = camera->queue[0];
    memmove(camera->queue, camera->queue + 1, --camera->queued * sizeof(int));
    draw(camera, state, camera->memory + index * SLOT);
    camera->shown++;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    buffer->index = index;
    buffer->bytesused = BYTES;
    buffer->length = SLOT;
    buffer->m.offset = index * SLOT;
    buffer->sequence = camera->shown;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
    buffer->timestamp = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

static int answer(struct camera *camera, unsigned long request, void *argument) {
    char state[32] = "";
    struct stat found;
    if (REAL(stat)(camera->path, &found) != 0 || found.st_ino != camera->identity || state_of(camera->path, state) != 0)
        return errno = ENODEV, -1;
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *told = argument;
        memset(told, 0, sizeof *told);
        strcpy((char *)told->driver, "uvcvideo");
        strcpy((char *)told->card, "Fake Camera");
        told->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        told->capabilities = told->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUM_FMT: {
        struct v4l2_fmtdesc *told = argument;
        if (told->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || told->index > 1) return errno = EINVAL, -1;
        told->pixelformat = told->index == 0 ? V4L2_PIX_FMT_YUYV : V4L2_PIX_FMT_MJPEG;
        return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
        struct v4l2_frmsizeenum *told = argument;
        if (told->pixel_format == V4L2_PIX_FMT_MJPEG && told->index == 0) {
            told->type = V4L2_FRMSIZE_TYPE_STEPWISE;
            told->stepwise = (struct v4l2_frmsize_stepwise){160, 1920, 16, 120, 1080, 8};
            return 0;
        }
        if (told->pixel_format != V4L2_PIX_FMT_YUYV || told->index > 1) return errno = EINVAL, -1;
        told->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        told->discrete = (struct v4l2_frmsize_discrete){WIDTH << told->index, HEIGHT << told->index};
        return 0;
    }
    case VIDIOC_G_FMT:
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT: {
        struct v4l2_format *told = argument;
        if (told->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return errno = EINVAL, -1;
        if (request == VIDIOC_S_FMT && strcmp(state, "busy") == 0) return errno = EBUSY, -1;
        memset(&told->fmt, 0, sizeof told->fmt);
        told->fmt.pix = (struct v4l2_pix_format){.width = WIDTH, .height = HEIGHT, .pixelformat = V4L2_PIX_FMT_YUYV,
                                                 .field = V4L2_FIELD_NONE, .bytesperline = 2 * WIDTH, .sizeimage = BYTES};
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *told = argument;
        if (told->memory != V4L2_MEMORY_MMAP) return errno = EINVAL, -1;
        if (told->count > BUFFERS) told->count = BUFFERS;
        camera->queued = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *told = argument;
        told->length = SLOT;
        told->m.offset = told->index * SLOT;
        return 0;
    }
    case VIDIOC_QBUF: {
        struct v4l2_buffer *told = argument;
        if (camera->queued < BUFFERS) camera->queue[camera->queued++] = told->index;
        return 0;
    }
    case VIDIOC_DQBUF:
        return dequeue(camera, state, argument);
    case VIDIOC_STREAMON:
        return strcmp(state, "busy") == 0 ? (errno = EBUSY, -1) : 0;
    case VIDIOC_STREAMOFF:
        camera->queued = 0;
        return 0;
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
        struct v4l2_streamparm *told = argument;
        told->parm.capture.timeperframe = (struct v4l2_fract){1, 30};
        told->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        return 0;
    }
    case VIDIOC_G_INPUT:
        *(int *)argument = 0;
        return 0;
    case VIDIOC_S_INPUT:
        return 0;
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *told = argument;
        if (told->index > 0) return errno = EINVAL, -1;
        told->type = V4L2_INPUT_TYPE_CAMERA;
        return 0;
    }
    default:
        return errno = ENOTTY, -1;
    }
}

int ioctl(int file, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (file < 0 || file >= MOST || cameras[file] == NULL) return REAL(ioctl)(file, request, argument);
    return answer(cameras[file], (unsigned int)request, argument);
}
