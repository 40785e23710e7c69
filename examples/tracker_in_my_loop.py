"""Record the kernel through a training loop of one's own: the three lines with `tracker`."""

import torch
import torch.nn.functional as F

import twophase_fast as tp

train, test = tp.zoo.load()  # real images, embedded
model = tp.zoo.small_cnn(seed=0)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

with tp.Tracker(model, probe=test.inputs[:16], out="tracked.h5", every=10, overwrite=True) as tracker:
    for step in range(41):
        batch = torch.randint(len(train.inputs), (64,))
        loss = F.cross_entropy(model(train.inputs[batch]), train.targets[batch])
        tracker.step(step, loss=loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

with tp.Trajectory.open("tracked.h5") as run:
    distances = run.kernel_distances()  # S[i, j] between the kernels at run.steps
    for step, distance in zip(run.steps, distances[0]):
        print(f"step {step:2d}: S to the kernel at initialisation {distance:.3f}")
