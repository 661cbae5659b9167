# Street View House Numbers, with the augmentation of CIFAR as Section 4.2.2 of
# [AIB] says, flips of digits included.
_base_ = './cifar10.py'

svhn = dict(
    _delete_=True,
    type='mmaib.SVHN',
    data_root='{{$MMAIB_DATA:data}}/svhn/')
test = dict(**svhn, split='test', pipeline={{_base_.test_pipeline}})
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
train_dataloader = dict(
    dataset=dict(
        **svhn, split='train', pipeline={{_base_.train_pipeline}}))
val_dataloader = dict(dataset=test)
test_dataloader = dict(dataset=test)
