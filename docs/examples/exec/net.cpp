// A network of two dense layers as a program of one's own: what `edgeloop measure net.toml --engine exec` runs.
//
// Called as `net net.bin FOLDER`. It reads FOLDER/plan.txt and FOLDER/input.0.bin, runs, and writes FOLDER/answer.txt
// beside its times or outputs. The protocol is docs/reference/exec.md; replace `Net` by your runtime.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <time.h>
#include <unistd.h>

static const int INPUTS = 256, HIDDEN = 64, OUTPUTS = 10;

static void fail(const std::string& what) {
    std::fprintf(stderr, "%s\n", what.c_str());  // the last line of stderr is what a failed session says
    std::exit(1);
}

static int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

static void sleep_until(int64_t due_ns) {
    const int64_t left = due_ns - now_ns();
    if (left <= 0) return;
    const timespec pause = {time_t(left / 1000000000), long(left % 1000000000)};
    nanosleep(&pause, nullptr);
}

template <typename T>
static std::vector<T> read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) fail(path + ": can't be read");
    std::vector<T> values(size_t(file.tellg()) / sizeof(T));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
    return values;
}

template <typename T>
static void write_all(const std::string& path, const std::vector<T>& values) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
    if (!file.flush()) fail(path + ": can't be written");
}

// relu(x W1 + b1) W2 + b2; the file holds W1, b1, W2, b2 in this order, float32.
struct Net {
    std::vector<float> weights;

    explicit Net(const std::string& path) : weights(read_all<float>(path)) {
        if (weights.size() != INPUTS * HIDDEN + HIDDEN + HIDDEN * OUTPUTS + OUTPUTS) fail(path + ": of another network");
    }

    void run(const float* x, float* y) const {
        const float *w1 = weights.data(), *b1 = w1 + INPUTS * HIDDEN, *w2 = b1 + HIDDEN, *b2 = w2 + HIDDEN * OUTPUTS;
        float hidden[HIDDEN];
        std::copy(b1, b1 + HIDDEN, hidden);
        for (int i = 0; i < INPUTS; ++i)
            for (int h = 0; h < HIDDEN; ++h) hidden[h] += x[i] * w1[i * HIDDEN + h];
        std::copy(b2, b2 + OUTPUTS, y);
        for (int h = 0; h < HIDDEN; ++h)
            for (int o = 0; o < OUTPUTS; ++o) y[o] += std::max(hidden[h], 0.0f) * w2[h * OUTPUTS + o];
    }
};

// Runs single inferences one after the other, back to back or one each period, and keeps how long each took.
struct Loop {
    const Net& net;
    const std::vector<float>& samples;
    int64_t period_ns;
    std::vector<float> out = std::vector<float>(OUTPUTS);
    size_t next = 0;
    int64_t missed = 0;

    int64_t once() {
        const float* x = samples.data() + next * INPUTS;
        next = (next + 1) % (samples.size() / INPUTS);
        const int64_t start = now_ns();
        net.run(x, out.data());
        return now_ns() - start;
    }

    std::vector<int64_t> run(int64_t runs_min, int64_t runs_max, int64_t time_ns) {
        std::vector<int64_t> times;
        const int64_t opened = now_ns();
        int64_t due = opened;
        missed = 0;
        do {
            if (period_ns > 0) {
                sleep_until(due);
                const int64_t late = now_ns() - due;
                if (late >= period_ns) {  // the run before went on for longer: this one starts now, the rest move
                    missed += late / period_ns;
                    due += late;
                }
                due += period_ns;
            }
            times.push_back(once());
        } while (int64_t(times.size()) < runs_max &&
                 (int64_t(times.size()) < runs_min || now_ns() - opened < time_ns));
        return times;
    }
};

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: net WEIGHTS FOLDER");
    const std::string folder = std::string(argv[2]) + "/";
    std::map<std::string, std::string> plan;
    std::ifstream lines(folder + "plan.txt");
    for (std::string key, value; lines >> key >> value;) plan[key] = value;
    if (plan["protocol"] != "1") fail("plan.txt is of protocol " + plan["protocol"] + ", this program speaks 1");
    const auto number = [&plan](const char* key) { return int64_t(std::stoll(plan.at(key))); };

    const int64_t begun = now_ns();
    const Net net(argv[1]);
    const int64_t load_ns = now_ns() - begun;
    const std::vector<float> samples = read_all<float>(folder + "input.0.bin");
    std::string answer = "version net 1.0\nload_ns " + std::to_string(load_ns) + "\n";

    if (plan["task"] == "evaluate") {
        std::vector<float> out(samples.size() / INPUTS * OUTPUTS);
        for (size_t i = 0; i < samples.size() / INPUTS; ++i) net.run(&samples[i * INPUTS], &out[i * OUTPUTS]);
        write_all(folder + "output.0.bin", out);
    } else {
        Loop loop{net, samples, number("period_ns")};
        const int64_t first_ns = loop.once();
        write_all(folder + "warmup.bin", loop.run(number("warmup_runs"), number("runs_max"), number("warmup_ns")));
        const int64_t opened = now_ns();
        const std::vector<int64_t> times = loop.run(number("runs"), number("runs_max"), number("time_ns"));
        const int64_t closed = now_ns();
        write_all(folder + "latency.bin", times);
        answer += "first_ns " + std::to_string(first_ns) + "\nwindow_start_ns " + std::to_string(opened) +
                  "\nwindow_end_ns " + std::to_string(closed) + "\nmissed_periods " + std::to_string(loop.missed) + "\n";
    }
    write_all(folder + "answer.txt", std::vector<char>(answer.begin(), answer.end()));

    // All is written: with stdout closed the agent reads our peak memory, then closes our stdin.
    close(1);
    char end;
    while (read(0, &end, 1) > 0) {
    }
    return 0;
}
