_base_ = './cifar10.py'

cifar100 = dict(
    type='CIFAR100', data_root='{{$MMAIB_DATA:data}}/cifar100/')
data_preprocessor = dict(
    num_classes=100,
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418])
train_dataloader = dict(dataset=cifar100)
val_dataloader = dict(dataset=cifar100)
test_dataloader = dict(dataset=cifar100)
